// SPDX-License-Identifier: Apache-2.0
#pragma once
// Device memory for activations: one allocation made before the first step, handed out as a stack. A Frame
// gives back everything taken since it was opened. A measuring arena allocates nothing and hands out spans
// without storage; running the same take-calls on it tells how large the real one has to be.

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

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

  /// Says, during its life, what spans are taken for.
  class Purpose {
   public:
    Purpose(Arena& arena, std::string what)
        : arena_(arena), outer_(std::exchange(arena.purpose_, std::move(what))) {}
    ~Purpose() { arena_.purpose_ = std::move(outer_); }
    Purpose(Purpose const&) = delete;
    Purpose& operator=(Purpose const&) = delete;

   private:
    Arena& arena_;
    std::string outer_;
  };
  struct Use {
    std::string purpose;
    std::size_t bytes = 0;
  };
  /// What the peak was made of, in the order of being taken. Known to measuring arenas only.
  std::vector<Use> peak_uses() const { return at_peak_now_ ? live_ : at_peak_; }

  /// Gives back, when it ends, what was taken during its life.
  class Frame {
   public:
    explicit Frame(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    ~Frame() { arena_.give_back(mark_); }
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
    if (measuring_) note(bytes);
    peak_ = std::max(peak_, used_);
    return result;
  }

  void note(std::size_t bytes) {
    if (used_ > peak_) at_peak_now_ = true;
    if (live_.empty() || live_.back().purpose != purpose_) live_.push_back({purpose_, 0});
    live_.back().bytes += bytes;
  }

  void give_back(std::size_t mark) {
    if (measuring_ && used_ > mark) {
      if (at_peak_now_) at_peak_ = live_;
      at_peak_now_ = false;
      for (std::size_t rest = used_ - mark; rest > 0;) {
        std::size_t const part = std::min(rest, live_.back().bytes);
        live_.back().bytes -= part;
        rest -= part;
        if (live_.back().bytes == 0) live_.pop_back();
      }
    }
    used_ = mark;
  }

  Kokkos::View<char*, kernels::MemSpace> storage_;
  bool measuring_ = false;
  std::size_t used_ = 0;
  std::size_t peak_ = 0;

  // Of a measuring arena.
  std::string purpose_;
  std::vector<Use> live_, at_peak_;
  bool at_peak_now_ = false;
};

}  // namespace strata::core
