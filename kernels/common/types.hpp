// SPDX-License-Identifier: Apache-2.0
#pragma once
// The types every kernel speaks: execution space, memory space, non-owning Views and the cost of a call.

#include <Kokkos_Core.hpp>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace strata::kernels {

/// Sizes, row numbers and offsets: 64 bits everywhere, so that windows beyond 2^31 elements work.
using Index = std::int64_t;

/// Where kernels run and where their data lives. A kernel takes the execution space instance first and never
/// fences; whoever reads a result on the host does.
using ExecSpace = Kokkos::DefaultExecutionSpace;
using MemSpace = ExecSpace::memory_space;

/// True when host code cannot touch MemSpace, i.e. when kernels run on a GPU.
inline constexpr bool on_device = !Kokkos::SpaceAccessibility<Kokkos::HostSpace, MemSpace>::accessible;

/// Non-owning spans, last index fastest. A Mat may be a range of columns of a wider matrix (`columns` below),
/// so its row stride can exceed its width.
template <class T>
using Vec = Kokkos::View<T*, Kokkos::LayoutRight, MemSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;
template <class T>
using Mat = Kokkos::View<T**, Kokkos::LayoutRight, MemSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;

/// Read-only spans as function parameters. They take no part in template argument deduction, so that a
/// Mat<float> is accepted where a ConstMat<T> is asked for.
template <class T>
using ConstVec = Vec<std::type_identity_t<T> const>;
template <class T>
using ConstMat = Mat<std::type_identity_t<T> const>;

/// Rows [begin, end) and columns [begin, end) of a matrix, sharing its storage.
template <class T>
Mat<T> rows(Mat<T> const& m, Index begin, Index end) {
  return Kokkos::subview(m, std::pair<Index, Index>(begin, end), Kokkos::ALL);
}
template <class T>
Mat<T> columns(Mat<T> const& m, Index begin, Index end) {
  return Kokkos::subview(m, Kokkos::ALL, std::pair<Index, Index>(begin, end));
}
template <class T>
Vec<T> range(Vec<T> const& v, Index begin, Index end) {
  return Vec<T>(v.data() + begin, end - begin);
}
/// The elements of a matrix whose rows are contiguous, as one vector, or as a matrix of another shape.
template <class T>
Vec<T> flat(Mat<T> const& m) {
  return Vec<T>(m.data(), m.extent(0) * m.extent(1));
}
template <class T>
Mat<T> reshape(Mat<T> const& m, Index rows, Index columns) {
  return Mat<T>(m.data(), rows, columns);
}

/// A batch of equally long sequences, row r = sequence * length + position. In generation they are some lanes
/// of a carry, each with a past of its own, which only forward passes know: arrays (count) on the device,
/// null otherwise.
struct Sequences {
  Index count = 0;
  Index length = 0;
  Index const* slots = nullptr;   ///< the carry's lane of each sequence; null: sequence k is lane k
  Index const* starts = nullptr;  ///< positions each has seen, for spans of one position; null: all the same

  KOKKOS_INLINE_FUNCTION constexpr Index rows() const { return count * length; }
  KOKKOS_INLINE_FUNCTION Index slot(Index k) const { return slots == nullptr ? k : slots[k]; }
  KOKKOS_INLINE_FUNCTION Index start(Index k, Index common) const {
    return starts == nullptr ? common : starts[k];
  }
  /// Whether a carry with so many lanes has one for every sequence.
  bool fits(Index lanes) const { return slots == nullptr ? lanes == count : lanes > 0; }
  /// Sequences [first, first + n).
  Sequences part(Index first, Index n) const {
    return {n, length, slots == nullptr ? nullptr : slots + first,
            starts == nullptr ? nullptr : starts + first};
  }
};

/// What one call of a kernel moves and computes: main-memory traffic in bytes if nothing stays in cache, and
/// floating-point operations (a multiply-add counts 2, exp or a division counts 1).
struct Cost {
  double bytes_read = 0;
  double bytes_written = 0;
  double flops = 0;
  /// Of these, what counts as the model's useful operations: in a forward kernel those of
  /// Block::forward_flops, in a backward kernel twice as many (doc/performance.md).
  double model_flops = 0;

  constexpr double bytes() const { return bytes_read + bytes_written; }
  constexpr Cost& operator+=(Cost const& other) {
    bytes_read += other.bytes_read;
    bytes_written += other.bytes_written;
    flops += other.flops;
    model_flops += other.model_flops;
    return *this;
  }
  friend constexpr Cost operator+(Cost a, Cost const& b) { return a += b; }
  friend constexpr Cost operator*(double times, Cost const& c) {
    return {times * c.bytes_read, times * c.bytes_written, times * c.flops, times * c.model_flops};
  }
};

/// Of a kernel that reads and writes so many elements once.
template <class T>
constexpr Cost copy_cost(Index elements) {
  double const bytes = static_cast<double>(elements) * sizeof(T);
  return {bytes, bytes, 0};
}

/// A kernel's template is compiled once per scalar type, in its own .cpp file.
#define STRATA_INSTANTIATE(MACRO) MACRO(float) MACRO(double)

}  // namespace strata::kernels
