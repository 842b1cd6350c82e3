// SPDX-License-Identifier: Apache-2.0
// Sum of the gradients over the ranks, nothing to hide it behind. The number of iterations is fixed, so that
// ranks never disagree on it, and the time is that of the slowest rank.

#include <chrono>

#include "parallel/gradient_sync.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

void gradient_sync(benchmark::State& state, Index elements) {
  using Clock = std::chrono::steady_clock;
  parallel::Communicator const ranks;
  Vector<float> const gradients("strata::perf_gradients", elements);
  parallel::GradientSync<float> sync(ranks, gradients);
  auto const step = [&] {
    ranks.barrier();
    Clock::time_point const start = Clock::now();
    sync.start(0, elements);
    sync.finish();
    return ranks.max(std::chrono::duration<double>(Clock::now() - start).count());
  };
  step();
  for ([[maybe_unused]] auto _ : state) state.SetIterationTime(step());
  state.counters["ranks"] = ranks.size();
  if (ranks.size() == 1) return;  // a lone rank sends nothing
  auto const rate = benchmark::Counter::kIsIterationInvariantRate;
  double const gigabytes = 1e-9 * static_cast<double>(elements) * sizeof(float);
  state.counters["GB/s"] = benchmark::Counter(gigabytes, rate);
  state.counters["wire_GB/s"] = benchmark::Counter(gigabytes * 2 * (ranks.size() - 1) / ranks.size(), rate);
}

void add_sync(char const* group, Index elements, Index iterations) {
  add("gradient_sync", "float", group, std::to_string(elements), [=](auto& state) {
    gradient_sync(state, elements);
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
