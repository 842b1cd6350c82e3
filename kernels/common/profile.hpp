// SPDX-License-Identifier: Apache-2.0
#pragma once
// Scopes that name where time goes. A region (a stage, a layer, a pass, reading data) is shown to a loaded
// Kokkos Tools library and to the program's own listener, a kernel with its cost and an MPI call to the
// listener only. While nobody listens a scope tests one pointer, a region also asks Kokkos whether a library
// is loaded; no name is built and no cost computed. Scopes belong to the main thread and close in the reverse
// order of opening.

#include <string>

#include "kernels/common/types.hpp"

namespace strata::kernels {

enum class ScopeKind { region, kernel, communication };

/// Told of every scope. Names are string literals; number 0 stands for none.
class ProfileListener {
 public:
  virtual ~ProfileListener() = default;
  virtual void open(ScopeKind kind, char const* name, Index number, Cost const& cost) = 0;
  virtual void close() = 0;
};

/// Who listens at the moment; null: nobody.
inline ProfileListener* profile_listener = nullptr;

/// One call of a kernel's public function, opened in its first line. cost_of() is called while somebody
/// listens.
class KernelScope {
 public:
  template <class CostOf>
  KernelScope(char const* name, CostOf const& cost_of) : listener_(profile_listener) {
    if (listener_ != nullptr) listener_->open(ScopeKind::kernel, name, 0, cost_of());
  }
  ~KernelScope() {
    if (listener_ != nullptr) listener_->close();
  }
  KernelScope(KernelScope const&) = delete;
  KernelScope& operator=(KernelScope const&) = delete;

 private:
  ProfileListener* listener_;
};

/// One call of MPI that this rank sends `bytes` with.
class CommunicationScope {
 public:
  CommunicationScope(char const* name, std::size_t bytes) : listener_(profile_listener) {
    if (listener_ != nullptr)
      listener_->open(ScopeKind::communication, name, 0, {static_cast<double>(bytes), 0, 0});
  }
  ~CommunicationScope() {
    if (listener_ != nullptr) listener_->close();
  }
  CommunicationScope(CommunicationScope const&) = delete;
  CommunicationScope& operator=(CommunicationScope const&) = delete;

 private:
  ProfileListener* listener_;
};

/// A part of the program: "loss", or with a number "stage 1".
class Region {
 public:
  explicit Region(char const* name, Index number = 0)
      : listener_(profile_listener), shown_(Kokkos::Profiling::profileLibraryLoaded()) {
    if (shown_)
      Kokkos::Profiling::pushRegion(number == 0 ? std::string(name)
                                                : std::string(name) + " " + std::to_string(number));
    if (listener_ != nullptr) listener_->open(ScopeKind::region, name, number, {});
  }
  ~Region() {
    if (listener_ != nullptr) listener_->close();
    if (shown_) Kokkos::Profiling::popRegion();
  }
  Region(Region const&) = delete;
  Region& operator=(Region const&) = delete;

 private:
  ProfileListener* listener_;
  bool shown_;
};

}  // namespace strata::kernels
