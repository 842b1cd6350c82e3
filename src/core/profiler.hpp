// SPDX-License-Identifier: Apache-2.0
#pragma once
// Times the scopes of kernels/common/profile.hpp. Every moment from the start to the end belongs to the
// innermost scope that is open, so that the times of all scopes and of what lies outside them add up to the
// whole.

#include <chrono>
#include <cstdint>
#include <vector>

#include "kernels/common/profile.hpp"

namespace strata::core {

/// A scope at one place among the others: all its openings with the same scopes around it.
struct ProfileNode {
  kernels::ScopeKind kind = kernels::ScopeKind::region;
  char const* name = "";
  kernels::Index number = 0;
  std::size_t parent = 0;  ///< index of the scope around it; the root is its own
  std::vector<std::size_t> children;
  std::int64_t calls = 0;
  std::int64_t nanoseconds = 0;  ///< in the scope itself, not in scopes inside it
  kernels::Cost cost;            ///< sum over its calls

  double seconds() const { return 1e-9 * static_cast<double>(nanoseconds); }
};

/// Listens from its construction to stop(). Each opening and closing waits for the device, so that
/// asynchronous work counts where it was launched. Scopes inside a kernel or an MPI call count as part of it:
/// neither their time nor their cost counts twice. Only one profiler may listen at a time, and no scope that
/// it saw open may outlive it.
class Profiler final : public kernels::ProfileListener {
 public:
  Profiler();
  ~Profiler() override { stop(); }
  Profiler(Profiler const&) = delete;
  Profiler& operator=(Profiler const&) = delete;

  void open(kernels::ScopeKind kind, char const* name, kernels::Index number,
            kernels::Cost const& cost) override;
  void close() override;
  /// No scope may be open.
  void stop();

  /// [0] is the root: the time outside all scopes.
  std::vector<ProfileNode> const& nodes() const { return nodes_; }
  /// From the construction to stop(), or to the latest opening or closing.
  double seconds() const { return 1e-9 * static_cast<double>(total_); }

 private:
  using Clock = std::chrono::steady_clock;

  /// Adds the time since the last call to the current scope.
  void charge();

  std::vector<ProfileNode> nodes_;
  std::size_t current_ = 0;
  std::int64_t inside_leaf_ = 0;  ///< scopes open inside a kernel or an MPI call
  std::int64_t total_ = 0;        ///< nanoseconds
  Clock::time_point last_;
};

}  // namespace strata::core
