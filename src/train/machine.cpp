// SPDX-License-Identifier: Apache-2.0
#include "train/machine.hpp"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <vector>

#include "core/error.hpp"
#include "core/runtime.hpp"
#include "io/atomic_file.hpp"
#include "io/hdf5.hpp"
#include "kernels/common/types.hpp"
#include "kernels/linear.hpp"
#include "kernels/triad.hpp"
#include "parallel/block.hpp"
#include "parallel/exchange.hpp"
#include "parallel/together.hpp"

namespace strata::train {

using kernels::ExecSpace;
using kernels::Index;
using kernels::Vec;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Shortest of repeated calls within `budget` seconds; the first call warms up and does not count.
template <class Call>
double shortest(ExecSpace const& space, double budget, Call const& call) {
  call();
  space.fence();
  double best = 1e30;
  Clock::time_point const begin = Clock::now();
  do {
    Clock::time_point const start = Clock::now();
    call();
    space.fence();
    best = std::min(best, seconds_since(start));
  } while (seconds_since(begin) < budget);
  return best;
}

template <class T>
double gemm_flops(ExecSpace const& space, Index n, double seconds) {
  Kokkos::View<T**, Kokkos::LayoutRight, kernels::MemSpace> const x("strata::peak_x", n, n),
      y("strata::peak_y", n, n);
  Kokkos::deep_copy(space, x, T(0.5));
  double const time = shortest(space, seconds, [&] {
    kernels::linear_forward<T>(space, x, x, kernels::ConstVec<T>(), kernels::Mat<T>(y));
  });
  return 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / time;
}

double triad_bandwidth(ExecSpace const& space) {
  constexpr Index n = Index{1} << (kernels::on_device ? 26 : 23);  // 32 MiB an array on a CPU
  Kokkos::View<float*, Kokkos::LayoutRight, kernels::MemSpace> const a("strata::triad_a", n),
      b("strata::triad_b", n), c("strata::triad_c", n);
  double const time = shortest(space, 0.05, [&] { kernels::triad<float>(space, 0.5F, b, c, Vec<float>(a)); });
  return 3.0 * sizeof(float) * static_cast<double>(n) / time;
}

/// Shortest way of `bytes` bytes from one rank of a pair to the other: half the time there and back, seconds.
double one_way(parallel::Communicator const& ranks, int partner, std::size_t bytes, int times) {
  std::string message(bytes, 'x');
  double best = 1e30;
  for (int i = 0; i < times; ++i) {
    Clock::time_point const start = Clock::now();
    parallel::exchange(ranks, message, partner, ranks.rank() < partner);
    best = std::min(best, seconds_since(start) / 2);
  }
  return best;
}

/// Ranks 0 and 1, 2 and 3, ... at the same time; a last rank without a neighbour looks on.
void measure_messages(Machine& machine, parallel::Communicator const& ranks) {
  if (ranks.size() == 1) return;
  int const partner = ranks.rank() ^ 1;
  bool const has_partner = partner < ranks.size();
  constexpr std::size_t small = 8;
  constexpr std::size_t large = std::size_t{1} << 22;
  ranks.barrier();
  machine.mpi_latency = ranks.max(has_partner ? one_way(ranks, partner, small, 200) : 0);
  machine.mpi_bandwidth =
      static_cast<double>(large) / ranks.max(has_partner ? one_way(ranks, partner, large, 10) : 0);
}

}  // namespace

double measure_gemm_flops(double seconds) {
  return gemm_flops<float>(ExecSpace(), kernels::on_device ? 4096 : 1024, seconds);
}

Machine measure_machine(parallel::Communicator const& ranks) {
  ExecSpace const space;
  Machine machine;
  ranks.barrier();
  machine.gemm_flops = measure_gemm_flops();
  machine.gemm_double_flops = gemm_flops<double>(space, kernels::on_device ? 4096 : 512, 0.05);
  machine.bandwidth = triad_bandwidth(space);
  core::reset_peak_resident();
  measure_messages(machine, ranks);
  return machine;
}

void measure_files(Machine& machine, std::string const& folder, parallel::Communicator const& ranks) {
  constexpr Index bytes = Index{1} << 24;
  constexpr Index count = bytes / static_cast<Index>(sizeof(float));
  parallel::Block const mine = parallel::block_of(count, ranks.rank(), ranks.size());
  std::vector<float> values(static_cast<std::size_t>(mine.size()), 1.0F);
  std::span<float const> const out = values;
  try {
    std::optional<io::AtomicFile> target;
    parallel::on_root(ranks, [&] {
      target.emplace(folder + "/speed.h5");
      io::File file = io::File::create(target->partial());
      file.create_dataset("/values", io::ElementType::float32, {count}, {.contiguous = true});
      file.close();
    });
    std::string const path = ranks.broadcast(target ? target->partial() : std::string());
    Clock::time_point const start = Clock::now();
    if (ranks.size() == 1) {
      io::File file = io::File::reopen(path);
      file.dataset("/values").write(out);
      file.close();
    } else {
      parallel::together(ranks, [&] { io::require_writable(path); });
      std::optional<io::File> file;
      parallel::together(ranks, [&] { file.emplace(io::File::open_shared(path, ranks)); });
      parallel::agree(ranks, file->dataset("/values").write_shared(mine.first, out));
      parallel::together(ranks, [&] { file->close(); });
    }
    parallel::on_root(ranks, [&] { target->sync(); });
    Clock::time_point const written = Clock::now();
    parallel::together(ranks,
                       [&] { io::File::open(path).dataset("/values").read(mine.first, std::span(values)); });
    machine.hdf5_read = static_cast<double>(bytes) / ranks.max(seconds_since(written));
    machine.hdf5_write =
        static_cast<double>(bytes) / ranks.max(std::chrono::duration<double>(written - start).count());
    ranks.barrier();
  } catch (core::InputError const&) {
    machine.hdf5_write = machine.hdf5_read = 0;
  }
}

nlohmann::ordered_json limits_json(Machine const& machine) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  auto const put = [&](char const* key, double value) {
    if (value > 0) json[key] = value;
  };
  put("gemm_flops_per_second", machine.gemm_flops);
  put("gemm_double_flops_per_second", machine.gemm_double_flops);
  put("memory_bytes_per_second", machine.bandwidth);
  put("mpi_latency_seconds", machine.mpi_latency);
  put("mpi_bytes_per_second", machine.mpi_bandwidth);
  put("hdf5_write_bytes_per_second", machine.hdf5_write);
  put("hdf5_read_bytes_per_second", machine.hdf5_read);
  return json;
}

nlohmann::ordered_json origin_json() {
  core::Provenance const made = core::provenance();
  nlohmann::ordered_json json;
  json["time"] = made.time;
  json["host"] = made.host;
  json["version"] = made.version;
  json["commit"] = made.commit;
  json["kokkos"] = made.kokkos_version;
  json["backend"] = made.backend;
  json["blas"] = made.blas;
  json["ranks"] = made.ranks;
  json["threads"] = made.threads;
  json["command"] = made.command;
  return json;
}

}  // namespace strata::train
