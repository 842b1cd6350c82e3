// SPDX-License-Identifier: Apache-2.0
// What the kernel says of free memory, in files made for the purpose.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <vector>

#include "core/memory.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace strata::core {
namespace {

constexpr std::size_t gib = std::size_t{1} << 30;

/// A machine with 8 GiB available.
class Machine {
 public:
  Machine() { put("proc/meminfo", "MemTotal: 99 kB\nMemFree: 5 kB\nMemAvailable: 8388608 kB\n"); }
  void put(std::string const& name, std::string const& text) {
    auto const path = std::filesystem::path(folder_.path()) / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  std::size_t free() const { return free_host_bytes(folder_.path()); }

 private:
  test::TempFolder folder_;
};

TEST(FreeMemory, IsWhatTheKernelCallsAvailable) {
  Machine machine;
  EXPECT_EQ(machine.free(), 8 * gib);
  machine.put("proc/self/cgroup", "0::/\n1:name=systemd:/x\nnonsense\n\n");
  EXPECT_EQ(machine.free(), 8 * gib);
}

TEST(FreeMemory, ControlGroupsOfVersion2LimitIt) {
  Machine machine;
  machine.put("proc/self/cgroup", "0::/a/b\n");
  machine.put("sys/fs/cgroup/a/b/memory.max", "max\n");
  machine.put("sys/fs/cgroup/a/b/memory.current", "1073741824\n");
  EXPECT_EQ(machine.free(), 8 * gib);
  machine.put("sys/fs/cgroup/a/memory.max", "4294967296\n");
  machine.put("sys/fs/cgroup/a/memory.current", "3221225472\n");
  EXPECT_EQ(machine.free(), 1 * gib);
  // Caches can be dropped.
  machine.put("sys/fs/cgroup/a/memory.stat",
              "anon 7\ninactive_file 1073741824\nactive_file 1073741824\nshmem 5\n");
  EXPECT_EQ(machine.free(), 3 * gib);
  machine.put("sys/fs/cgroup/a/b/memory.max", "1073741824\n");
  EXPECT_EQ(machine.free(), 0U);
}

TEST(FreeMemory, ControlGroupsOfVersion1LimitIt) {
  Machine machine;
  machine.put("proc/self/cgroup", "9:cpu,cpuacct:/job\n4:memory:/job\n0::/\n");
  machine.put("sys/fs/cgroup/cpu/job/memory.limit_in_bytes", "1");
  EXPECT_EQ(machine.free(), 8 * gib);
  machine.put("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "3221225472");
  machine.put("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "2147483648");
  machine.put("sys/fs/cgroup/memory/job/memory.stat", "total_inactive_file 536870912\ninactive_file 5\n");
  EXPECT_EQ(machine.free(), gib + gib / 2);
  machine.put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  machine.put("sys/fs/cgroup/memory/memory.usage_in_bytes", "2147483648");
  EXPECT_EQ(machine.free(), gib + gib / 2);
}

TEST(FreeMemory, OwnMemoryGrowsWithWhatIsTaken) {
  std::size_t const before = resident_bytes();
  std::vector<char> const taken(std::size_t{64} << 20, 'x');
  EXPECT_GE(resident_bytes(), before + (std::size_t{60} << 20));
  EXPECT_LT(resident_bytes(), before + (std::size_t{80} << 20));
  EXPECT_EQ(taken.back(), 'x');
}

}  // namespace
}  // namespace strata::core
