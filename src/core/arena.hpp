// SPDX-License-Identifier: Apache-2.0
#pragma once
// Device memory for activations: one allocation made before the first step, handed out as a stack. A Frame
// gives back everything taken since it was opened. A measuring arena allocates nothing and hands out spans
// without storage; running the same take-calls on it tells how large the real one has to be.

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>

#include "kernels/common/types.hpp"

namespace strata::core {

class Arena {
 public:
  using Index = kernels::Index;

  /// Takes `bytes` of device memory.
  explicit Arena(std::size_t bytes)
      : storage_(Kokkos::view_alloc(Kokkos::WithoutInitializing, "strata::arena"), bytes) {}

  static Arena measuring() { return Arena(); }

  bool is_measuring() const { return measuring_; }
  /// Bytes in use, and the most that were in use at once.
  std::size_t used() const { return used_; }
  std::size_t peak() const { return peak_; }

  template <class T>
  kernels::Vec<T> vector(Index n) {
    return kernels::Vec<T>(static_cast<T*>(take(static_cast<std::size_t>(n) * sizeof(T))), n);
  }
  template <class T>
  kernels::Mat<T> matrix(Index rows, Index columns) {
    return kernels::Mat<T>(static_cast<T*>(take(static_cast<std::size_t>(rows * columns) * sizeof(T))), rows,
                           columns);
  }

  /// Gives back, when it ends, what was taken during its life.
  class Frame {
   public:
    explicit Frame(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    ~Frame() { arena_.used_ = mark_; }
    Frame(Frame const&) = delete;
    Frame& operator=(Frame const&) = delete;

   private:
    Arena& arena_;
    std::size_t mark_;
  };

 private:
  static constexpr std::size_t alignment = 256;

  Arena() : measuring_(true) {}

  void* take(std::size_t bytes) {
    bytes = (bytes + alignment - 1) / alignment * alignment;
    if (!measuring_ && used_ + bytes > storage_.extent(0))
      throw std::logic_error("arena: " + std::to_string(bytes) + " bytes asked for, " +
                             std::to_string(storage_.extent(0) - used_) + " left");
    void* const result = measuring_ ? nullptr : storage_.data() + used_;
    used_ += bytes;
    peak_ = std::max(peak_, used_);
    return result;
  }

  Kokkos::View<char*, kernels::MemSpace> storage_;
  bool measuring_ = false;
  std::size_t used_ = 0;
  std::size_t peak_ = 0;
};

}  // namespace strata::core
