// SPDX-License-Identifier: Apache-2.0
#pragma once
// A register of neighbouring elements, and the small matrix product that blocks of attention and of the
// state-space dual form are made of. On
// the host a register is one SIMD register; on a GPU it is one element, because there the threads of a team
// are the lanes.

#include "kernels/common/types.hpp"

namespace strata::kernels::tiles {

// Written out and not left to the vectoriser: compilers keep a tile of accumulators in registers only when
// each of them is one variable of register type.
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP) || defined(KOKKOS_ENABLE_SYCL)
inline constexpr int tile_rows = 4;
inline constexpr int tile_registers = 4;

template <class T>
struct Lanes {
  static constexpr int width = 1;
  T value;

  KOKKOS_INLINE_FUNCTION static Lanes zero() { return {T(0)}; }
  KOKKOS_INLINE_FUNCTION static Lanes load(T const* from) { return {*from}; }
  KOKKOS_INLINE_FUNCTION void store(T* to) const { *to = value; }
  KOKKOS_INLINE_FUNCTION void add_product(T a, Lanes b) { value += a * b.value; }
  KOKKOS_INLINE_FUNCTION void add(Lanes b) { value += b.value; }
};
#else
#if defined(__AVX512F__)
inline constexpr int register_bytes = 64, tile_rows = 8;
#elif defined(__AVX__)
inline constexpr int register_bytes = 32, tile_rows = 4;
#else
inline constexpr int register_bytes = 16, tile_rows = 4;
#endif
inline constexpr int tile_registers = 2;

template <class T>
struct Lanes {
  static constexpr int width = register_bytes / static_cast<int>(sizeof(T));
  typedef T Register __attribute__((vector_size(register_bytes)));
  Register value;

  static Lanes zero() { return {Register{}}; }
  static Lanes load(T const* from) {
    Lanes lanes;
    __builtin_memcpy(&lanes.value, from, sizeof(Register));
    return lanes;
  }
  void store(T* to) const { __builtin_memcpy(to, &value, sizeof(Register)); }
  void add_product(T a, Lanes b) { value += a * b.value; }
  void add(Lanes b) { value += b.value; }
};
#endif

/// Columns of a full tile of a product.
template <class T>
inline constexpr int tile_columns = tile_registers* Lanes<T>::width;

/// The smallest multiple of a register's width that holds n elements.
template <class T>
KOKKOS_INLINE_FUNCTION constexpr int padded(Index n) {
  return static_cast<int>((n + Lanes<T>::width - 1) / Lanes<T>::width) * Lanes<T>::width;
}

/// What becomes of a product: c = a b, c += a b, or row i of c = scale[i] c + a b.
enum class Into { set, add, scaled };

/// Element (i, k) of the left factor is data[i * row_step + k * column_step].
template <class T>
struct Left {
  T const* data;
  Index row_step, column_step;

  KOKKOS_INLINE_FUNCTION Left from(Index row, Index column) const {
    return {data + row * row_step + column * column_step, row_step, column_step};
  }
};

/// c (M, N registers) from `depth` columns of a and as many rows of b. b is padded to whole registers; of c
/// only `columns` columns are touched.
template <Into into, int M, int N, class T>
KOKKOS_FORCEINLINE_FUNCTION void multiply_tile(Left<T> const a, T const* b, Index b_step, int depth, T* c,
                                               Index c_step, int columns, T const* scale) {
  constexpr int width = Lanes<T>::width;
  Lanes<T> sum[M][N];
  for (int i = 0; i < M; ++i) {
    for (int v = 0; v < N; ++v) sum[i][v] = Lanes<T>::zero();
  }
  for (int k = 0; k < depth; ++k) {
    Lanes<T> right[N];
    for (int v = 0; v < N; ++v) right[v] = Lanes<T>::load(b + k * b_step + v * width);
    for (int i = 0; i < M; ++i) {
      T const left = a.data[i * a.row_step + k * a.column_step];
      for (int v = 0; v < N; ++v) sum[i][v].add_product(left, right[v]);
    }
  }
  for (int i = 0; i < M; ++i) {
    for (int v = 0; v < N; ++v) {
      T* const to = c + i * c_step + v * width;
      int const remaining = columns - v * width;
      if (remaining < width) {
        T part[width];
        sum[i][v].store(part);
        for (int l = 0; l < remaining; ++l) {
          if constexpr (into == Into::set) to[l] = part[l];
          if constexpr (into == Into::add) to[l] += part[l];
          if constexpr (into == Into::scaled) to[l] = scale[i] * to[l] + part[l];
        }
        continue;
      }
      // Products of a block are added up before they join earlier blocks: a long sum loses less to rounding.
      if constexpr (into == Into::add) sum[i][v].add(Lanes<T>::load(to));
      if constexpr (into == Into::scaled) sum[i][v].add_product(scale[i], Lanes<T>::load(to));
      sum[i][v].store(to);
    }
  }
}

/// The same for any number of rows up to a tile's, in pieces of M, M/2, .. 1 rows.
template <Into into, int M, int N, class T>
KOKKOS_FORCEINLINE_FUNCTION void multiply_rows(Left<T> a, T const* b, Index b_step, int depth, T* c,
                                               Index c_step, int rows, int columns, T const* scale) {
  if (rows >= M) {
    multiply_tile<into, M, N>(a, b, b_step, depth, c, c_step, columns, scale);
    a = a.from(M, 0);
    c += M * c_step;
    if constexpr (into == Into::scaled) scale += M;
    rows -= M;
  }
  if constexpr (M > 1) {
    if (rows > 0) multiply_rows<into, M / 2, N>(a, b, b_step, depth, c, c_step, rows, columns, scale);
  }
}

/// One tile of a product of blocks: rows <= tile_rows, columns <= tile_columns<T>.
template <Into into, class T>
KOKKOS_INLINE_FUNCTION void multiply(Left<T> a, T const* b, Index b_step, int depth, T* c, Index c_step,
                                     int rows, int columns, T const* scale = nullptr) {
  constexpr int width = Lanes<T>::width;
  if (columns > tile_columns<T> - width) {
    multiply_rows<into, tile_rows, tile_registers>(a, b, b_step, depth, c, c_step, rows, columns, scale);
    return;
  }
  for (int n = 0; n < columns; n += width) {
    multiply_rows<into, tile_rows, 1>(a, b + n, b_step, depth, c + n, c_step, rows, columns - n, scale);
  }
}

}  // namespace strata::kernels::tiles
