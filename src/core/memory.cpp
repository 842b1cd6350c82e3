// SPDX-License-Identifier: Apache-2.0
#include "core/memory.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>

#include "kernels/common/types.hpp"

#if defined(KOKKOS_ENABLE_CUDA)
#include <cuda_runtime_api.h>
#elif defined(KOKKOS_ENABLE_HIP)
#include <hip/hip_runtime_api.h>
#endif

namespace strata::core {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t unlimited = std::numeric_limits<std::size_t>::max();

/// Pages in use by this process: size of the address space and resident part.
std::array<std::size_t, 2> own_pages() {
  std::array<std::size_t, 2> pages = {};
  std::ifstream("/proc/self/statm") >> pages[0] >> pages[1];
  return pages;
}

std::size_t page_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

/// What is left of a limit.
std::size_t rest(std::size_t limit, std::size_t used) { return limit > used ? limit - used : 0; }

/// The number in a file that holds nothing else; nothing for "max" and for files that do not exist.
std::optional<std::size_t> number_in(fs::path const& file) {
  std::size_t value = 0;
  std::ifstream in(file);
  return in >> value ? std::optional(value) : std::nullopt;
}

/// Sum of the named entries of a file of lines "name number".
std::size_t sum_of(fs::path const& file, std::array<char const*, 2> const& names) {
  std::ifstream in(file);
  std::string name;
  std::size_t value = 0;
  std::size_t sum = 0;
  while (in >> name >> value)
    if (std::find(names.begin(), names.end(), name) != names.end()) sum += value;
  return sum;
}

struct GroupFiles {
  char const* limit;
  char const* usage;
  std::array<char const*, 2> caches;  ///< entries of memory.stat
};
constexpr GroupFiles version_1 = {
    "memory.limit_in_bytes", "memory.usage_in_bytes", {"total_inactive_file", "total_active_file"}};
constexpr GroupFiles version_2 = {"memory.max", "memory.current", {"inactive_file", "active_file"}};

/// What the group `path` below `mount`, and every group around it, leave.
std::size_t left_by_groups(fs::path const& mount, std::string path, GroupFiles const& files) {
  std::size_t least = unlimited;
  while (true) {
    fs::path const folder = mount.string() + path;
    auto const limit = number_in(folder / files.limit);
    auto const usage = number_in(folder / files.usage);
    if (limit && usage) {
      std::size_t const caches = std::min(*usage, sum_of(folder / "memory.stat", files.caches));
      least = std::min(least, rest(*limit, *usage - caches));
    }
    if (path.empty()) return least;
    path.erase(path.rfind('/'));
  }
}

std::size_t left_by_groups(std::string const& root) {
  std::size_t least = unlimited;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // number:controllers:/path
    std::size_t const first = line.find(':');
    std::size_t const second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos || line.compare(second + 1, 1, "/") != 0)
      continue;
    std::string controllers = line.substr(first, second - first + 1);  // with a colon at either end
    std::replace(controllers.begin(), controllers.end(), ',', ':');
    std::string path = line.substr(second + 1);
    if (path == "/") path.clear();
    if (controllers == "::") {
      for (char const* mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"})
        least = std::min(least, left_by_groups(root + mount, path, version_2));
    } else if (controllers.find(":memory:") != std::string::npos) {
      least = std::min(least, left_by_groups(root + "/sys/fs/cgroup/memory", path, version_1));
    }
  }
  return least;
}

std::size_t left_by_address_space() {
  struct rlimit limit = {};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return unlimited;
  return rest(limit.rlim_cur, own_pages()[0] * page_bytes());
}

std::size_t available_to_machine(std::string const& root) {
  std::ifstream in(root + "/proc/meminfo");
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string name;
    std::size_t kib = 0;
    if (words >> name >> kib && name == "MemAvailable:") return 1024 * kib;
  }
  return static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * page_bytes();
}

}  // namespace

std::size_t resident_bytes() { return own_pages()[1] * page_bytes(); }

std::size_t free_host_bytes(std::string const& root) {
  return std::min({available_to_machine(root), left_by_groups(root), left_by_address_space()});
}

std::size_t free_device_bytes() {
  if constexpr (!kernels::on_device) return free_host_bytes();
#if defined(KOKKOS_ENABLE_CUDA)
  std::size_t free = 0;
  std::size_t total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess)
    throw std::runtime_error("the GPU does not say how much memory it has free");
  return free;
#elif defined(KOKKOS_ENABLE_HIP)
  std::size_t free = 0;
  std::size_t total = 0;
  if (hipMemGetInfo(&free, &total) != hipSuccess)
    throw std::runtime_error("the GPU does not say how much memory it has free");
  return free;
#else
  return free_host_bytes();
#endif
}

}  // namespace strata::core
