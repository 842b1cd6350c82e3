// SPDX-License-Identifier: Apache-2.0
#pragma once
// How much memory this process has and may still take.

#include <cstddef>
#include <string>

namespace strata::core {

/// Resident memory of this process now, in bytes.
std::size_t resident_bytes();

/// Main memory that this process can still take without swapping or being ended: the least of what the kernel
/// counts as available (MemAvailable), what the limits of its control groups (version 1 or 2, with all groups
/// around them) leave, and what the limit on its address space leaves. File caches that the kernel would drop
/// do not count as used. `root` stands before /proc and /sys; tests change it.
std::size_t free_host_bytes(std::string const& root = "");

/// Memory that the device of the default execution space has free; free_host_bytes() where that is the host.
std::size_t free_device_bytes();

}  // namespace strata::core
