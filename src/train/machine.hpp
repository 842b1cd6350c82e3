// SPDX-License-Identifier: Apache-2.0
#pragma once
// The limits of the machine that a result is measured against, taken in the same process and stored with it.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "parallel/communicator.hpp"

namespace strata::train {

/// 0 where a limit was not measured. The first three are of this rank, on its cores.
struct Machine {
  double gemm_flops = 0;  ///< operations per second of a large float matrix product
  double bandwidth = 0;   ///< bytes per second of a triad a = b + s c over arrays larger than the caches
  double gemm_double_flops = 0;  ///< as the first, in double
  /// Between neighbouring ranks, the slowest pair; absent with one rank: seconds that 8 bytes take one way,
  /// and bytes per second of 4 MiB.
  double mpi_latency = 0, mpi_bandwidth = 0;
  /// Bytes per second of a contiguous HDF5 array that all ranks write together, until it is on the disk, and
  /// that each reads its part of again.
  double hdf5_write = 0, hdf5_read = 0;
};

/// The first alone, in about so many seconds. It needs little memory, so that it does not raise the peak of a
/// small run, and leaves the BLAS with the buffers that every run has.
double measure_gemm_flops(double seconds = 0.2);

/// Collective: all but the last two; best of several calls, in about 0.4 s. All ranks measure at the same
/// time, so that each sees its share of a node. The 96 MiB of the triad (768 MiB on a GPU) are given back,
/// and where the system allows they do not count in the process's peak memory.
Machine measure_machine(parallel::Communicator const& ranks);

/// Collective: the last two, once each, with a file of 16 MiB in `folder` that is gone afterwards. They stay
/// 0 where it cannot be written.
void measure_files(Machine& machine, std::string const& folder, parallel::Communicator const& ranks);

/// {"gemm_flops_per_second": ..., ...} without those that are absent; the keys of doc/formats.md.
nlohmann::ordered_json limits_json(Machine const& machine);

/// Who made a result, as every JSON of results begins: time, host, version, commit, kokkos, backend, blas,
/// ranks, threads, command.
nlohmann::ordered_json origin_json();

}  // namespace strata::train
