// SPDX-License-Identifier: Apache-2.0
// A program whose ranks end in the way its first argument says; test_runtime.py runs it and looks at what
// comes out.

#include <mpi.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

#include "core/error.hpp"
#include "core/log.hpp"
#include "core/runtime.hpp"

using namespace strata;

namespace {

int wait_for_stop() {
  core::catch_stop_signals();
  std::puts("ready");
  std::fflush(stdout);
  for (int i = 0; i < 2000 && !core::stop_requested(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  if (!core::stop_requested()) return static_cast<int>(core::ExitStatus::failure);
  std::puts("stopping");
  std::fflush(stdout);
  // Long enough for a second SIGINT to arrive.
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  return static_cast<int>(core::ExitStatus::interrupted);
}

int run_case(int argc, char** argv) {
  std::string const name = argc > 1 ? argv[1] : "";
  int rank = 0;
  int size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  bool const last = rank == size - 1;
  if (name == "success") return 0;
  if (name == "status") return static_cast<int>(core::ExitStatus::interrupted);
  if (name == "status_on_last") return last ? static_cast<int>(core::ExitStatus::interrupted) : 0;
  if (name == "all_throw") throw core::InputError("the deck is\nbad\n");
  if (name == "all_out_of_memory") throw std::bad_alloc();
  if (name == "last_throws") {
    if (last) throw std::runtime_error("only one rank failed");
    return 0;
  }
  if (name == "last_throws_while_others_wait") {
    if (last) throw std::runtime_error("only one rank failed");
    MPI_Barrier(MPI_COMM_WORLD);
    return 0;
  }
  if (name == "two_throw_while_others_wait") {
    if (rank >= size - 2) throw std::runtime_error("two ranks failed");
    MPI_Barrier(MPI_COMM_WORLD);
    return 0;
  }
  if (name == "not_an_exception") throw 1;
  if (name == "log") {
    core::log().info("a remark");
    return 0;
  }
  if (name == "arguments") {
    if (rank == 0)
      for (int i = 2; i < argc; ++i) std::printf("[%s]", argv[i]);
    return argv[argc] == nullptr ? 0 : 1;
  }
  if (name == "provenance") {
    auto const p = core::provenance();
    if (rank == 0)
      std::printf("%s|%s|%s|%s|%s|%s|%s|%d|%d|%.0f\n", p.version.c_str(), p.commit.c_str(),
                  p.kokkos_version.c_str(), p.backend.c_str(), p.blas.c_str(), p.host.c_str(), p.time.c_str(),
                  p.ranks, p.threads, core::peak_resident_bytes());
    return 0;
  }
  if (name == "wait_for_stop") return wait_for_stop();
  throw core::InputError("no case named '" + name + "'");
}

}  // namespace

int main(int argc, char** argv) { return core::run_main(argc, argv, run_case); }
