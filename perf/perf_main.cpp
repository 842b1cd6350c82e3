// SPDX-License-Identifier: Apache-2.0
// The main function of every benchmark program: MPI and Kokkos, the limits of the machine, who measured what.

#include <string_view>
#include <vector>

#include "core/runtime.hpp"
#include "parallel/communicator.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

/// All ranks run the benchmarks, rank 0 reports.
class Silent : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(Context const&) override { return true; }
  void ReportRuns(std::vector<Run> const&) override {}
};

std::string giga(double value) { return std::to_string(1e-9 * value); }

void add_context(Limits const& limit, core::Provenance const& who, std::string const& command) {
  auto const add_text = [](char const* key, std::string const& value) {
    benchmark::AddCustomContext(key, value);
  };
  add_text("strata_version", who.version);
  add_text("commit", who.commit);
  add_text("kokkos_version", who.kokkos_version);
  add_text("backend", who.backend);
  add_text("threads", std::to_string(who.threads));
  add_text("ranks", std::to_string(who.ranks));
  add_text("blas", who.blas);
  add_text("host", who.host);
  add_text("time_utc", who.time);
  add_text("command", command);
  add_text("gemm_float_gflops", giga(limit.gemm_float));
  add_text("gemm_double_gflops", giga(limit.gemm_double));
  add_text("triad_gbytes_per_s", giga(limit.bandwidth));
  if (limit.machine.mpi_bandwidth > 0) {
    add_text("mpi_latency_us", std::to_string(1e6 * limit.machine.mpi_latency));
    add_text("mpi_gbytes_per_s", giga(limit.machine.mpi_bandwidth));
  }
  if (limit.machine.hdf5_write > 0) {
    add_text("hdf5_write_gbytes_per_s", giga(limit.machine.hdf5_write));
    add_text("hdf5_read_gbytes_per_s", giga(limit.machine.hdf5_read));
  }
}

/// Ranks must not write to one file, and only rank 0 may speak of unknown arguments.
void remove_output_arguments(int& argc, char** argv) {
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (!std::string_view(argv[i]).starts_with("--benchmark_out")) argv[kept++] = argv[i];
  }
  argc = kept;
  argv[argc] = nullptr;
}

int run(int argc, char** argv) {
  parallel::Communicator const ranks;
  std::string command;
  for (int i = 0; i < argc; ++i) command.append(i == 0 ? "" : " ").append(argv[i]);
  if (!ranks.is_root()) remove_output_arguments(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (argc > 1) {
    if (ranks.is_root()) benchmark::ReportUnrecognizedArguments(argc, argv);
    return 1;
  }
  ranks.barrier();  // all ranks measure their limits at the same time
  add_context(limits(), core::provenance(), command);
  std::size_t matched = 0;
  if (ranks.is_root()) {
    matched = benchmark::RunSpecifiedBenchmarks();
  } else {
    Silent silent;
    matched = benchmark::RunSpecifiedBenchmarks(&silent);
  }
  benchmark::Shutdown();
  return matched > 0 ? 0 : 1;
}

}  // namespace
}  // namespace strata::perf

int main(int argc, char** argv) { return strata::core::run_main(argc, argv, strata::perf::run); }
