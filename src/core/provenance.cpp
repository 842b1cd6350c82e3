// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <unistd.h>

#include <Kokkos_Core.hpp>
#include <array>
#include <ctime>
#include <string>

#include "commit.hpp"
#include "core/runtime.hpp"
#include "kernels/common/types.hpp"

namespace strata::core {
namespace {

/// OpenBLAS describes itself; other libraries offer no common way to ask.
std::string blas_description() {
  using GetConfig = char* (*)();
  auto const get_config = reinterpret_cast<GetConfig>(dlsym(RTLD_DEFAULT, "openblas_get_config"));
  return get_config == nullptr ? "unknown" : get_config();
}

std::string host_name() {
  std::array<char, 256> name = {};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "unknown";
}

std::string utc_time() {
  std::time_t const now = std::time(nullptr);
  std::tm parts = {};
  gmtime_r(&now, &parts);
  std::array<char, 32> text = {};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

}  // namespace

Provenance provenance() {
  kernels::ExecSpace const space;
  Provenance result;
  result.version = STRATA_VERSION;
  result.commit = STRATA_COMMIT;
  result.kokkos_version = std::to_string(KOKKOS_VERSION / 10000) + "." +
                          std::to_string(KOKKOS_VERSION / 100 % 100) + "." +
                          std::to_string(KOKKOS_VERSION % 100);
  result.backend = std::string(kernels::ExecSpace::name()) + " x" + std::to_string(space.concurrency());
  result.blas = blas_description();
  result.host = host_name();
  result.time = utc_time();
  result.command = command_line();
  result.ranks = number_of_ranks();
  result.threads = static_cast<int>(Kokkos::DefaultHostExecutionSpace().concurrency());
  return result;
}

}  // namespace strata::core
