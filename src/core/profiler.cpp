// SPDX-License-Identifier: Apache-2.0
#include "core/profiler.hpp"

#include <cstring>
#include <stdexcept>

namespace strata::core {

using kernels::Index;
using kernels::ScopeKind;

Profiler::Profiler() : nodes_(1) {
  if (kernels::profile_listener != nullptr) throw std::logic_error("two profilers at a time");
  Kokkos::fence();
  last_ = Clock::now();
  kernels::profile_listener = this;
}

void Profiler::stop() {
  if (kernels::profile_listener != this) return;
  charge();
  kernels::profile_listener = nullptr;
}

void Profiler::charge() {
  Kokkos::fence();
  Clock::time_point const now = Clock::now();
  std::int64_t const passed = std::chrono::duration_cast<std::chrono::nanoseconds>(now - last_).count();
  nodes_[current_].nanoseconds += passed;
  total_ += passed;
  last_ = now;
}

void Profiler::open(ScopeKind kind, char const* name, Index number, kernels::Cost const& cost) {
  if (inside_leaf_ > 0 || nodes_[current_].kind != ScopeKind::region) {
    ++inside_leaf_;
    return;
  }
  charge();
  std::size_t at = 0;
  for (std::size_t const child : nodes_[current_].children) {
    ProfileNode const& node = nodes_[child];
    if (node.number == number && (node.name == name || std::strcmp(node.name, name) == 0)) at = child;
  }
  if (at == 0) {
    at = nodes_.size();
    nodes_[current_].children.push_back(at);
    nodes_.emplace_back();
    nodes_[at].kind = kind;
    nodes_[at].name = name;
    nodes_[at].number = number;
    nodes_[at].parent = current_;
  }
  current_ = at;
  nodes_[at].calls += 1;
  nodes_[at].cost += cost;
}

void Profiler::close() {
  if (inside_leaf_ > 0) {
    --inside_leaf_;
    return;
  }
  charge();
  current_ = nodes_[current_].parent;
}

}  // namespace strata::core
