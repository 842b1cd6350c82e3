// SPDX-License-Identifier: Apache-2.0
#pragma once
// Life of the program: MPI and Kokkos around a main function, errors into messages and exit statuses, signals
// into a flag.

#include <functional>
#include <string>

namespace strata::core {

/// Runs `body` with MPI and Kokkos initialised and returns the process's exit status: the largest one that
/// `body` returned on any rank, or failure after printing `strata: <message>` of whatever it threw, on one
/// line of standard error and once per program. An error on some ranks only ends the others too: after two
/// seconds in which they have not failed or returned themselves the job is aborted. Arguments --kokkos-... go
/// to Kokkos and are hidden from `body`.
int run_main(int argc, char** argv, std::function<int(int argc, char** argv)> const& body);

/// From now on SIGTERM, SIGUSR1 and the first SIGINT only ask this rank to stop; a second SIGINT ends the
/// process.
void catch_stop_signals();
/// True once one of them has arrived on this rank; the ranks still have to agree.
bool stop_requested();

/// The program with its arguments, as it was called.
std::string const& command_line();

/// Ranks of MPI_COMM_WORLD; 1 without MPI.
int number_of_ranks();

/// Forgets the peak so far, where the system allows it.
void reset_peak_resident();

/// Peak resident memory of this process in bytes.
double peak_resident_bytes();

/// Who made a result. `command` is command_line(). `backend` is the Kokkos space and its concurrency, `blas`
/// what the library says of itself or "unknown", `time` is UTC in ISO 8601, `threads` counts the host threads
/// of this rank.
struct Provenance {
  std::string version, commit, kokkos_version, backend, blas, host, time, command;
  int ranks = 1, threads = 1;
};
Provenance provenance();

}  // namespace strata::core
