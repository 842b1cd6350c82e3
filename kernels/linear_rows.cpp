// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear_rows.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/register_sums.hpp"
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

/// Up to so many rows the weights are only streamed: every tile runs over all of K. With more, the weights
/// of a block of outputs pass through the first-level cache piece by piece, and all rows over each piece.
constexpr Index streamed_rows = tile_rows;
constexpr Index block_outputs = 16;
template <class T>
inline constexpr Index piece = 2048 / sizeof(T);

constexpr Index line_bytes = 64;
/// How far ahead of its use a streamed weight is asked for.
constexpr Index bytes_ahead = 1024;

template <class T, int rows>
using Sums = Register<T>[rows][tile_outputs];

/// sums += products over `count` elements, a multiple of a register's width, of rows x_step apart and four
/// rows of weights. Every sum takes one product after the other, so the size of the tile does not show.
enum class Weights { stream, keep, reuse };
template <Weights how, int rows, class T>
__attribute__((always_inline)) inline void add_products(T const* x, Index x_step,
                                                        T const* const (&w)[tile_outputs], Index count,
                                                        T* kept, Sums<T, rows>& sums) {
  constexpr Index width = tiles::Lanes<T>::width;
  for (Index k = 0; k < count; k += width) {
    Register<T> right[tile_outputs];
    for (int n = 0; n < tile_outputs; ++n) {
      right[n] = load(w[n] + k);
      if constexpr (how == Weights::keep)
        __builtin_memcpy(kept + n * piece<T> + k, &right[n], sizeof right[n]);
      if constexpr (how == Weights::stream) __builtin_prefetch(w[n] + k + bytes_ahead / Index(sizeof(T)));
    }
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

/// All rows of one block of outputs.
template <class T>
struct FewRows {
  static constexpr Index width = tiles::Lanes<T>::width;
  ConstMat<T> x, weight;
  ConstVec<T> bias;
  Mat<T> y;
  bool accumulate;
  Index outputs_per_block;

  static constexpr bool streams(Index rows) { return rows <= streamed_rows; }
  static constexpr Index outputs_of_block(Index rows) { return streams(rows) ? tile_outputs : block_outputs; }

  void operator()(Index block) const {
    Index const first = block * outputs_per_block;
    if (streams(Index(x.extent(0)))) {
      stream<tile_rows>(first);
    } else {
      pass_over_pieces(first);
    }
  }

 private:
  Index rows() const { return Index(x.extent(0)); }
  Index inputs() const { return Index(x.extent(1)); }
  Index outputs() const { return Index(y.extent(1)); }

  /// Row n of the weights; beyond the end the last one again.
  T const* weights(Index n) const { return &weight(n < outputs() ? n : outputs() - 1, 0); }

  template <int most>
  void stream(Index n) const {
    if (rows() == most) {
      T const* const in = &x(0, 0);
      T const* const w[tile_outputs] = {weights(n), weights(n + 1), weights(n + 2), weights(n + 3)};
      Index const whole = inputs() / width * width, step = Index(x.stride(0));
      Sums<T, most> sums = {};
      add_products<Weights::stream, most>(in, step, w, whole, static_cast<T*>(nullptr), sums);
      finish<most>(0, n, whole, w, 0, sums);
    } else if constexpr (most > 1) {
      stream<most - 1>(n);
    }
  }

  /// What the tiles of a block share.
  struct Piece {
    Index first_output;
    Index begin, count;  ///< whole registers of K
    bool last;
    T* kept;                        ///< (block_outputs, piece) weights of this piece
    T* partial;                     ///< (rows, block_outputs, width) sums of earlier pieces
    Index next_output, next_begin;  ///< the piece to come
  };

  void pass_over_pieces(Index first) const {
    alignas(line_bytes) T kept[block_outputs * piece<T>];
    alignas(line_bytes) T partial[independent_rows * block_outputs * width];
    Index const whole = inputs() / width * width;
    Index begin = 0;
    do {
      Index const remaining = whole - begin;
      bool const last = remaining <= piece<T>;
      Piece const p{first,
                    begin,
                    last ? remaining : piece<T>,
                    last,
                    kept,
                    partial,
                    last ? first + outputs_per_block : first,
                    last ? 0 : begin + piece<T>};
      Index m = 0;
      for (; m + tile_rows <= rows(); m += tile_rows) rows_of_piece<tile_rows>(m, p);
      last_rows_of_piece<tile_rows - 1>(m, p);
      begin += piece<T>;
    } while (begin < whole);
  }

  template <int most>
  void last_rows_of_piece(Index m, Piece const& p) const {
    if constexpr (most > 0) {
      if (rows() - m == most) {
        rows_of_piece<most>(m, p);
      } else {
        last_rows_of_piece<most - 1>(m, p);
      }
    }
  }

  /// The first rows bring the weights into the cache, in the order of its lines and not of the matrix: the
  /// rows of a matrix often lie a power of two apart, and would push each other out.
  template <int count>
  void rows_of_piece(Index m, Piece const& p) const {
    Index const end = tiles_end(p.first_output), step = Index(x.stride(0));
    for (Index n = 0; n < end; n += tile_outputs) {
      prefetch_part(p, (m / tile_rows * outputs_per_block + n) / tile_outputs);
      T const* const in = &x(m, 0) + p.begin;
      T* const kept = p.kept + n * piece<T>;
      T* const partial = p.partial + (m * block_outputs + n) * width;
      Index const output = p.first_output + n;
      T const* const w[tile_outputs] = {weights(output) + p.begin, weights(output + 1) + p.begin,
                                        weights(output + 2) + p.begin, weights(output + 3) + p.begin};
      Sums<T, count> sums = {};
      if (p.begin > 0) {
        for (int i = 0; i < count; ++i)
          for (int j = 0; j < tile_outputs; ++j) sums[i][j] = load(partial + (i * block_outputs + j) * width);
      }
      if (m == 0) {
        add_products<Weights::keep, count>(in, step, w, p.count, kept, sums);
      } else {
        T const* const again[tile_outputs] = {kept, kept + piece<T>, kept + 2 * piece<T>,
                                              kept + 3 * piece<T>};
        add_products<Weights::reuse, count>(in, step, again, p.count, kept, sums);
      }
      if (p.last) {
        finish<count>(m, output, p.begin + p.count, w, p.begin, sums);
      } else {
        for (int i = 0; i < count; ++i)
          for (int j = 0; j < tile_outputs; ++j)
            __builtin_memcpy(partial + (i * block_outputs + j) * width, &sums[i][j], sizeof sums[i][j]);
      }
    }
  }

  Index tiles_end(Index first) const {
    return outputs() - first < outputs_per_block ? outputs() - first : outputs_per_block;
  }

  /// Each tile of a piece asks for an equal part of the next piece's weights, so that memory is never idle.
  void prefetch_part(Piece const& p, Index tile) const {
    constexpr Index lines_per_row = piece<T> * Index(sizeof(T)) / line_bytes;
    Index const tiles = (rows() + tile_rows - 1) / tile_rows * outputs_per_block / tile_outputs;
    Index const lines = outputs_per_block * lines_per_row;
    if (p.next_output >= outputs()) return;
    Index const end = (tile + 1) * lines / tiles;
    for (Index line = tile * lines / tiles; line < end; ++line) {
      Index const column = p.next_begin + line % lines_per_row * (line_bytes / Index(sizeof(T)));
      if (column < inputs()) __builtin_prefetch(weights(p.next_output + line / lines_per_row) + column, 0, 2);
    }
  }

  /// y of a tile, from its sums and what is left of K from `whole` on; w points to column `begin`.
  template <int count>
  void finish(Index m, Index n, Index whole, T const* const (&w)[tile_outputs], Index begin,
              Sums<T, count>& sums) const {
    if (whole < inputs()) {
      T const* const rest[tile_outputs] = {w[0] + whole - begin, w[1] + whole - begin, w[2] + whole - begin,
                                           w[3] + whole - begin};
      add_rest<count>(&x(m, 0) + whole, Index(x.stride(0)), rest, inputs() - whole, sums);
    }
    for (int i = 0; i < count; ++i) {
      T product[tile_outputs];
      tiles::sum_lanes<T>(sums[i], product);
      for (Index j = 0; j < tile_outputs && n + j < outputs(); ++j) {
        T const base = accumulate ? y(m + i, n + j) : (bias.data() ? bias(n + j) : T(0));
        y(m + i, n + j) = base + product[j];
      }
    }
  }
};

/// Below this many multiply-adds waking the other threads takes longer than the product.
constexpr Index serial_products = 65536;

}  // namespace

template <class T>
void multiply_few_rows(ExecSpace const& space, ConstMat<T> x, ConstMat<T> weight, ConstVec<T> bias, Mat<T> y,
                       bool accumulate) {
  Index const rows = Index(y.extent(0)), outputs = Index(y.extent(1));
  STRATA_REQUIRE(rows <= independent_rows, rows << " rows");
  // Enough blocks for every thread; a row of y does not depend on their size.
  Index per_block = FewRows<T>::outputs_of_block(rows);
  while (per_block > tile_outputs && outputs < 4 * per_block * space.concurrency()) per_block /= 2;
  FewRows<T> const functor{x, weight, bias, y, accumulate, per_block};
  Index const blocks = (outputs + per_block - 1) / per_block;
  if (rows * outputs * Index(x.extent(1)) <= serial_products) {
    for (Index block = 0; block < blocks; ++block) functor(block);
  } else {
    Kokkos::parallel_for("strata::linear::few_rows",
                         Kokkos::RangePolicy<ExecSpace, Kokkos::Schedule<Kokkos::Static> >(space, 0, blocks),
                         functor);
  }
}

#endif

#define STRATA_LINEAR_ROWS(T) \
  template void multiply_few_rows<T>(ExecSpace const&, ConstMat<T>, ConstMat<T>, ConstVec<T>, Mat<T>, bool);
STRATA_INSTANTIATE(STRATA_LINEAR_ROWS)

}  // namespace strata::kernels::linear
