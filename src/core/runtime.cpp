// SPDX-License-Identifier: Apache-2.0
#include "core/runtime.hpp"

#include <mpi.h>
#include <sys/resource.h>

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <new>
#include <optional>
#include <string_view>
#include <thread>
#include <vector>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "core/error.hpp"
#include "core/log.hpp"

namespace strata::core {
namespace {

volatile std::sig_atomic_t stop_flag = 0;

extern "C" void handle_stop(int signal) {
  // The second Ctrl-C of an impatient user ends the process at once.
  if (signal == SIGINT) {
    struct sigaction immediate = {};
    immediate.sa_handler = SIG_DFL;
    sigaction(SIGINT, &immediate, nullptr);
  }
  stop_flag = 1;
}

struct Outcome {
  int status = static_cast<int>(ExitStatus::success);
  std::optional<std::string> error;
};

Outcome run_body(int argc, char** argv, std::function<int(int, char**)> const& body) {
  auto const failed = [](std::string message) {
    return Outcome{static_cast<int>(ExitStatus::failure), std::move(message)};
  };
  try {
    return {body(argc, argv), std::nullopt};
  } catch (std::bad_alloc const&) {
    return failed("out of memory");
  } catch (std::exception const& error) {
    return failed(error.what());
  } catch (...) {
    return failed("an exception of unknown type");
  }
}

/// Always one line, whatever a library put into its message.
void print_error(std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  while (!message.empty() && message.back() == ' ') message.pop_back();
  std::fprintf(stderr, "strata: %s\n", message.c_str());
  std::fflush(stderr);
}

/// The program's status, the same on every rank. A rank that threw may be alone with its error while the
/// others wait for it in a collective, so it waits a short time only for them to come here too, and then ends
/// them all.
int agree(MPI_Comm comm, Outcome const& mine) {
  int rank = 0;
  int size = 1;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  // The maximum of the first entry names the lowest failed rank, which alone prints.
  std::array<int, 2> const send = {mine.error ? size - rank : 0, mine.status};
  std::array<int, 2> all = send;
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Iallreduce(send.data(), all.data(), static_cast<int>(send.size()), MPI_INT, MPI_MAX, comm, &request);
  if (mine.error) {
    // Higher ranks are more patient, so that one of several failed ranks speaks before the job ends.
    auto const patience = std::chrono::milliseconds(2000 + 200 * std::min(rank, 10));
    auto const deadline = std::chrono::steady_clock::now() + patience;
    int complete = 0;
    while (true) {
      MPI_Test(&request, &complete, MPI_STATUS_IGNORE);
      if (complete != 0) break;
      if (std::chrono::steady_clock::now() > deadline) {
        print_error(*mine.error);
        MPI_Abort(comm, static_cast<int>(ExitStatus::failure));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  } else {
    MPI_Wait(&request, MPI_STATUS_IGNORE);
  }
  if (all[0] == 0) return all[1];
  if (all[0] == size - rank) print_error(*mine.error);
  return static_cast<int>(ExitStatus::failure);
}

/// Moves the arguments meant for Kokkos (--kokkos-...) out of argv. Kokkos is shown nothing else: some
/// versions take --help and --threads for their own. Its advice on binding threads and on ranks that share
/// cores is turned off.
std::vector<char*> take_kokkos_arguments(int& argc, char** argv) {
  static std::string no_advice = "--kokkos-disable-warnings";
  std::vector<char*> taken = {argv[0], no_advice.data()};
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]).starts_with("--kokkos-"))
      taken.push_back(argv[i]);
    else
      argv[kept++] = argv[i];
  }
  argc = kept;
  argv[argc] = nullptr;
  return taken;
}

/// Large blocks go back to the system when they are freed. Else glibc, once it has seen one go, takes later
/// ones from the heap, where they stay, and a run has more than was planned.
void return_large_blocks() {
#if defined(__GLIBC__)
  constexpr int large = 1 << 20;
  mallopt(M_MMAP_THRESHOLD, large);
#endif
}

/// Kokkos before 3.7 knows the variable that names tools by an older name.
void name_tools_library() {
#if KOKKOS_VERSION < 30700
  if (char const* const libraries = std::getenv("KOKKOS_TOOLS_LIBS"))
    setenv("KOKKOS_PROFILE_LIBRARY", libraries, 0);
#endif
}

}  // namespace

int run_main(int argc, char** argv, std::function<int(int argc, char** argv)> const& body) {
  return_large_blocks();
  // Only the main thread calls MPI; the reader of the data uses HDF5 without MPI.
  int provided = 0;
  // Open MPI without mpiexec puts the arguments it is shown into one variable, which fails for some thousand
  // file names.
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
    print_error("MPI could not be initialised");
    return static_cast<int>(ExitStatus::failure);
  }
  // A communicator of its own, because collectives that a failed rank never joined may be pending on the
  // others.
  MPI_Comm comm = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  if (rank != 0) silence_log();

  int status = static_cast<int>(ExitStatus::failure);
  {
    auto kokkos_arguments = take_kokkos_arguments(argc, argv);
    int kokkos_argc = static_cast<int>(kokkos_arguments.size());
    kokkos_arguments.push_back(nullptr);
    name_tools_library();
    Kokkos::ScopeGuard const kokkos(kokkos_argc, kokkos_arguments.data());
    status = agree(comm, run_body(argc, argv, body));
  }
  // A launcher may end the other ranks as soon as one has exited with an error.
  std::cout.flush();
  std::fflush(nullptr);
  MPI_Comm_free(&comm);
  MPI_Finalize();
  return status;
}

void catch_stop_signals() {
  struct sigaction action = {};
  action.sa_handler = handle_stop;
  action.sa_flags = SA_RESTART;  // a write in progress goes on
  sigemptyset(&action.sa_mask);
  for (int const signal : {SIGTERM, SIGUSR1, SIGINT}) sigaction(signal, &action, nullptr);
}

bool stop_requested() { return stop_flag != 0; }

std::string const& command_line() {
  static std::string const command = [] {
    std::ifstream file("/proc/self/cmdline", std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(file), {}};
    if (!text.empty() && text.back() == '\0') text.pop_back();
    std::replace(text.begin(), text.end(), '\0', ' ');
    return text;
  }();
  return command;
}

int number_of_ranks() {
  int initialised = 0;
  MPI_Initialized(&initialised);
  int size = 1;
  if (initialised != 0) MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

void reset_peak_resident() { std::ofstream("/proc/self/clear_refs") << "5"; }

double peak_resident_bytes() {
  struct rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return 1024.0 * static_cast<double>(usage.ru_maxrss);  // Linux counts in KiB
}

}  // namespace strata::core
