// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear_rows.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/math.hpp"
#include "kernels/common/register_sums.hpp"
#include "kernels/common/row_ops.hpp"
#include "kernels/linear.hpp"

namespace strata::kernels::linear {

#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP) || defined(KOKKOS_ENABLE_SYCL)

template <class T>
void multiply_few_rows(ExecSpace const&, ConstMat<T>, ConstMat<T>, ConstVec<T>, Mat<T>, bool) {
  STRATA_REQUIRE(!on_device, "a kernel of hosts");
}

#else

namespace {

using tiles::load;
using tiles::load_some;
using tiles::Register;

/// A tile: sums of a few rows and four outputs, one register each, beside the elements they are made of.
constexpr int tile_outputs = 4;
#if defined(__AVX512F__)
constexpr int tile_rows = 4;
#else
constexpr int tile_rows = 2;
#endif

template <class T, int rows>
using Sums = Register<T>[rows][tile_outputs];

/// sums += products over `count` elements, a multiple of a register's width, of rows x_step apart and four
/// rows of weights. Every sum takes one product after the other, so the size of the tile does not show.
template <int rows, int coming_rows, class T>
__attribute__((always_inline)) inline void add_products(T const* x, Index x_step,
                                                        T const* const (&w)[tile_outputs], Index count,
                                                        T const* const* coming, Sums<T, rows>& sums) {
  constexpr Index width = tiles::Lanes<T>::width;
  for (Index k = 0; k < count; k += width) {
    Register<T> right[tile_outputs];
    for (int n = 0; n < tile_outputs; ++n) right[n] = load(w[n] + k);
    for (int n = 0; n < coming_rows; ++n) __builtin_prefetch(coming[n] + k, 0, 2);
    for (int m = 0; m < rows; ++m) {
      Register<T> const left = load(x + m * x_step + k);
      for (int n = 0; n < tile_outputs; ++n) sums[m][n] += left * right[n];
    }
  }
}

/// The last elements of K, fewer than a register's width, to the same lanes.
template <int rows, class T>
inline void add_rest(T const* x, Index x_step, T const* const (&w)[tile_outputs], Index count,
                     Sums<T, rows>& sums) {
  Register<T> right[tile_outputs];
  for (int n = 0; n < tile_outputs; ++n) right[n] = load_some(w[n], count);
  for (int m = 0; m < rows; ++m) {
    Register<T> const left = load_some(x + m * x_step, count);
    for (int n = 0; n < tile_outputs; ++n) sums[m][n] += left * right[n];
  }
}

/// Four outputs of all rows: the four rows of weights stay in a near cache while the rows of x pass over
/// them. Meanwhile the next four are fetched, so that memory is never idle.
template <class T>
struct FewRows {
  static constexpr Index width = tiles::Lanes<T>::width;
  ConstMat<T> x, weight;
  ConstVec<T> bias;
  Mat<T> y;
  bool accumulate;

  void operator()(Index block) const {
    Index const first = block * tile_outputs, tiles = (rows() + tile_rows - 1) / tile_rows;
    T const* const w[tile_outputs] = {weights(first), weights(first + 1), weights(first + 2),
                                      weights(first + 3)};
    Index m = 0;
    if (tiles == 1) {
      multiply_last<tile_rows, tile_outputs>(m, first, w, 0);
      return;
    }
    for (; m + tile_rows <= rows(); m += tile_rows) {
      Index const tile = m / tile_rows;
      if (tiles <= 3 && tile < 2) {
        multiply<tile_rows, 2>(m, first, w, tile * 2);
      } else if (tile < tile_outputs && tiles > 3) {
        multiply<tile_rows, 1>(m, first, w, tile);
      } else {
        multiply<tile_rows, 0>(m, first, w, 0);
      }
    }
    multiply_last<tile_rows - 1, 2>(m, first, w, 2);
  }

 private:
  Index rows() const { return Index(x.extent(0)); }
  Index inputs() const { return Index(x.extent(1)); }
  Index outputs() const { return Index(y.extent(1)); }

  /// Row n of the weights; beyond the end the last one again.
  T const* weights(Index n) const { return &weight(n < outputs() ? n : outputs() - 1, 0); }

  template <int most, int coming_rows>
  void multiply_last(Index m, Index n, T const* const (&w)[tile_outputs], Index coming) const {
    if constexpr (most > 0) {
      if (rows() - m == most) {
        multiply<most, coming_rows>(m, n, w, coming);
      } else {
        multiply_last<most - 1, coming_rows>(m, n, w, coming);
      }
    }
  }

  /// A tile: `count` rows from m on, four outputs from n on. Fetches `coming_rows` rows of the next weights.
  template <int count, int coming_rows>
  void multiply(Index m, Index n, T const* const (&w)[tile_outputs], Index coming) const {
    T const* const in = &x(m, 0);
    Index const step = Index(x.stride(0)), whole = inputs() / width * width;
    T const* next[tile_outputs];
    for (int i = 0; i < coming_rows; ++i) next[i] = weights(n + tile_outputs + coming + i);
    Sums<T, count> sums = {};
    add_products<count, coming_rows>(in, step, w, whole, next, sums);
    if (whole < inputs()) {
      T const* const rest[tile_outputs] = {w[0] + whole, w[1] + whole, w[2] + whole, w[3] + whole};
      add_rest<count>(in + whole, step, rest, inputs() - whole, sums);
    }
    for (int i = 0; i < count; ++i) {
      T product[tile_outputs];
      tiles::sum_lanes<T>(sums[i], product);
      T* const out = &y(m + i, n);
      int const many = outputs() - n < tile_outputs ? static_cast<int>(outputs() - n) : tile_outputs;
      for (int j = 0; j < many; ++j) {
        T const base = accumulate ? out[j] : (bias.data() ? bias(n + j) : T(0));
        out[j] = base + product[j];
      }
    }
  }
};

/// Rows that pass over the weights together: as many as stay in the second-level cache beside them. What
/// more rows would lose there is more than reading the weights again costs.
template <class T>
Index rows_at_once(Index rows, Index inputs) {
  constexpr Index cached_bytes = 1 << 20, least = 16;
  Index const cached = cached_bytes / (inputs * Index(sizeof(T)));
  Index const passes = blocks_of(rows, cached < least ? least : cached);
  return blocks_of(blocks_of(rows, passes), tile_rows) * tile_rows;
}

template <class T>
void multiply_rows(ExecSpace const& space, FewRows<T> const& functor) {
  Index const blocks = blocks_of(Index(functor.y.extent(1)), tile_outputs);
  constexpr Index at_once = 16;  // multiply-adds of one instruction
  auto const products = Index(functor.y.extent(0) * functor.weight.extent(0) * functor.weight.extent(1));
  for_tasks(space, "strata::linear::few_rows", blocks, products / at_once, functor);
}

}  // namespace

template <class T>
void multiply_few_rows(ExecSpace const& space, ConstMat<T> x, ConstMat<T> weight, ConstVec<T> bias, Mat<T> y,
                       bool accumulate) {
  Index const all = Index(y.extent(0));
  STRATA_REQUIRE(all <= independent_rows, all << " rows");
  Index const step = rows_at_once<T>(all, Index(x.extent(1)));
  for (Index begin = 0; begin < all; begin += step) {
    Index const end = math::min(begin + step, all);
    multiply_rows(space, FewRows<T>{rows(x, begin, end), weight, bias, rows(y, begin, end), accumulate});
  }
}

#endif

#define STRATA_LINEAR_ROWS(T) \
  template void multiply_few_rows<T>(ExecSpace const&, ConstMat<T>, ConstMat<T>, ConstVec<T>, Mat<T>, bool);
STRATA_INSTANTIATE(STRATA_LINEAR_ROWS)

}  // namespace strata::kernels::linear
