// SPDX-License-Identifier: Apache-2.0
// Sum of the gradients over the ranks, nothing to hide it behind: to all ranks, to the owners of its parts,
// and back from these to all; beside MPI's own sum in buckets of the same size. The number of iterations is
// fixed, so that ranks never disagree on it, and the time is that of the slowest rank.

#include <chrono>
#include <vector>

#include "parallel/gradient_sync.hpp"
#include "parallel/mpi_type.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

/// Times `step` of `elements` floats, of which each rank has to send `sends` times (ranks - 1) / ranks at
/// least.
template <class Step>
void measure_over_ranks(benchmark::State& state, parallel::Communicator const& ranks, Index elements,
                        int sends, Step const& step) {
  using Clock = std::chrono::steady_clock;
  auto const timed = [&] {
    ranks.barrier();
    Clock::time_point const start = Clock::now();
    step();
    return ranks.max(std::chrono::duration<double>(Clock::now() - start).count());
  };
  timed();
  for ([[maybe_unused]] auto _ : state) state.SetIterationTime(timed());
  state.counters["ranks"] = ranks.size();
  if (ranks.size() == 1) return;  // a lone rank sends nothing
  auto const rate = benchmark::Counter::kIsIterationInvariantRate;
  double const gigabytes = 1e-9 * static_cast<double>(elements) * sizeof(float);
  state.counters["GB/s"] = benchmark::Counter(gigabytes, rate);
  state.counters["wire_GB/s"] =
      benchmark::Counter(gigabytes * sends * (ranks.size() - 1) / ranks.size(), rate);
}

void gradient_sync(benchmark::State& state, Index elements, parallel::GradientSyncSettings settings) {
  parallel::Communicator const ranks;
  Vector<float> const gradients("strata::perf_gradients", elements);
  parallel::GradientSync<float> sync(ranks, gradients, settings);
  bool const to_all = settings.sums_go_to == parallel::SumsGoTo::every_rank;
  measure_over_ranks(state, ranks, elements, to_all ? 2 : 1, [&] {
    sync.start(0, elements);
    sync.finish();
  });
}

void parameter_gather(benchmark::State& state, Index elements, parallel::GradientSyncSettings settings) {
  parallel::Communicator const ranks;
  Vector<float> const values("strata::perf_values", elements);
  parallel::GradientSync<float> sync(ranks, values, settings);
  measure_over_ranks(state, ranks, elements, 1, [&] { sync.gather(values, 0, elements); });
}

/// What the library's own non-blocking sum takes, four buckets under way.
void library_sum(benchmark::State& state, Index elements, Index bucket) {
  parallel::Communicator const ranks;
  Vector<float> const values("strata::perf_values", elements);
  constexpr Index under_way = 4;
  std::vector<MPI_Request> requests;
  measure_over_ranks(state, ranks, elements, 2, [&] {
    requests.clear();
    for (Index at = 0; at < elements; at += bucket) {
      std::size_t const number = requests.size();
      if (number >= under_way) MPI_Wait(&requests[number - under_way], MPI_STATUS_IGNORE);
      requests.push_back(MPI_REQUEST_NULL);
      MPI_Iallreduce(MPI_IN_PLACE, values.data() + at, static_cast<int>(std::min(bucket, elements - at)),
                     parallel::mpi_type<float>(), MPI_SUM, ranks.get(), &requests.back());
    }
    MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
  });
}

void add_sync(char const* group, Index elements, Index iterations) {
  using Settings = parallel::GradientSyncSettings;
  std::string const shape = std::to_string(elements);
  Settings owner;
  owner.sums_go_to = parallel::SumsGoTo::owner;
  add("gradient_sync", "float", group, shape, [=](auto& state) {
    gradient_sync(state, elements, {});
  })->Iterations(iterations);
  for (Index const bucket : {Index(1) << 16, Index(1) << 19, Index(1) << 24})
    add("gradient_sync_buckets", "float", group, shape + "/" + std::to_string(bucket), [=](auto& state) {
      gradient_sync(state, elements, {bucket});
    })->Iterations(iterations);
  add("gradient_sync_to_owners", "float", group, shape, [=](auto& state) {
    gradient_sync(state, elements, owner);
  })->Iterations(iterations);
  add("parameter_gather", "float", group, shape, [=](auto& state) {
    parameter_gather(state, elements, owner);
  })->Iterations(iterations);
  if constexpr (!parallel::through_host)
    add("library_sum", "float", group, shape, [=](auto& state) {
      library_sum(state, elements, Settings().bucket_elements);
    })->Iterations(iterations);
}

Registration const registration([] {
  add_sync("smoke", 1 << 10, 5);
  add_sync("small", 1 << 20, 50);
  add_sync("local", 22'000'000, 10);
  add_sync("long", 360'000'000, 3);
});

}  // namespace
}  // namespace strata::perf
