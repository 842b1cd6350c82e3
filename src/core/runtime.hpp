// SPDX-License-Identifier: Apache-2.0
#pragma once
// Life of the program: MPI and Kokkos around a main function, errors into messages and exit statuses, signals into a flag.

#include <functional>
#include <string>

namespace strata::core {

/// Runs `body` with MPI and Kokkos initialised and returns the process's exit status: what the body returned, or
/// failure after printing the message of whatever it threw (one sentence, once per program when every rank throws the same).
/// An error on some ranks only ends the others too.
int run_main(int argc, char** argv, std::function<int(int argc, char** argv)> const& body);

/// True once SIGTERM or SIGUSR1 has arrived (their handlers are installed by `catch_stop_signals`).
void catch_stop_signals();
bool stop_requested();

/// Peak resident memory of this process in bytes.
double peak_resident_bytes();

/// Who made a result.
struct Provenance {
  std::string version, commit, kokkos_version, backend, blas, host, time;
  int ranks = 1, threads = 1;
};
Provenance provenance();

}  // namespace strata::core
