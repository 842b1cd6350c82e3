// SPDX-License-Identifier: Apache-2.0
#pragma once
// Launching work on the rows of a matrix such that host loops vectorise and device loops coalesce, from one
// source.
//
//   for_rows     f(lanes, row)    one row at a time: `lanes` offers loops and sums over the row's columns;
//                                 a thread on the host, a team of threads on a GPU
//   for_tiles    f(tile)          elementwise and column-wise work: a tile is `rows_per_block` rows of a few
//                                 hundred columns on the host, of one column on a GPU (a thread each)
//   for_spans    f(begin, end)    elementwise work on a vector
//
// Blocks depend on the shape only, never on the number of threads, and every sum has a fixed order, so
// results are the same bits on any number of threads.

#include <Kokkos_Core.hpp>
#include <string>

#include "kernels/common/math.hpp"
#include "kernels/common/tasks.hpp"
#include "kernels/common/types.hpp"

// Lets g++ vectorise a loop over several arrays that never overlap, or overlap in the same element only.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define STRATA_INDEPENDENT _Pragma("GCC ivdep")
#else
#define STRATA_INDEPENDENT
#endif

namespace strata::kernels {

inline constexpr Index rows_per_block = 32;
inline constexpr int tile_columns = on_device ? 1 : 512;
inline constexpr Index span_length = on_device ? 1 : 4096;

KOKKOS_INLINE_FUNCTION constexpr Index blocks_of(Index n, Index block) { return (n + block - 1) / block; }

/// The thread(s) that work on a row: a host thread.
struct HostLanes {
  /// f(c) for all c in [0, n), in any order.
  template <class F>
  void loop(Index n, F const& f) const {
    STRATA_INDEPENDENT
    for (Index c = 0; c < n; ++c) f(c);
  }
  /// The sum of f(c): `lanes` independent partial sums, which fill vector registers, over runs short enough
  /// to lose few bits.
  template <class T, class F>
  T sum(Index n, F const& f) const {
    constexpr Index lanes = 128 / sizeof(T), run = 2048;
    double total = 0;
    for (Index start = 0; start < n; start += run) {
      Index const end = math::min(start + run, n), whole = start + (end - start) / lanes * lanes;
      T partial[lanes] = {};
      for (Index c = start; c < whole; c += lanes)
        for (Index l = 0; l < lanes; ++l) partial[l] += f(c + l);
      for (Index c = whole; c < end; ++c) partial[c - whole] += f(c);
      for (Index width = lanes / 2; width > 0; width /= 2)
        for (Index l = 0; l < width; ++l) partial[l] += partial[l + width];
      total += static_cast<double>(partial[0]);
    }
    return static_cast<T>(total);
  }
  /// f() once per row.
  template <class F>
  void once(F const& f) const {
    f();
  }
};

/// The same on a GPU: a team, whose threads take turns over the columns.
struct TeamLanes {
  using Member = Kokkos::TeamPolicy<ExecSpace>::member_type;
  Member const& member;

  template <class F>
  KOKKOS_INLINE_FUNCTION void loop(Index n, F const& f) const {
    Kokkos::parallel_for(Kokkos::TeamVectorRange(member, n), f);
  }
  template <class T, class F>
  KOKKOS_INLINE_FUNCTION T sum(Index n, F const& f) const {
    T total = 0;
    Kokkos::parallel_reduce(
        Kokkos::TeamVectorRange(member, n), [&](Index c, T& part) { part += f(c); }, total);
    return total;
  }
  template <class F>
  KOKKOS_INLINE_FUNCTION void once(F const& f) const {
    Kokkos::single(Kokkos::PerTeam(member), f);
  }
};

using Lanes = std::conditional_t<on_device, TeamLanes, HostLanes>;

/// Rows [row_begin, row_end), the block-th block of them, and columns [column, column + width), width <=
/// tile_columns.
struct Tile {
  Index block, row_begin, row_end, column;
  int width;
};

namespace impl {

template <class F>
struct TeamRows {
  F f;
  KOKKOS_INLINE_FUNCTION void operator()(TeamLanes::Member const& member) const {
    f(TeamLanes{member}, static_cast<Index>(member.league_rank()));
  }
};

template <class F>
struct HostRows {
  F f;
  void operator()(Index row) const { f(HostLanes{}, row); }
};

template <class F>
struct Tiles {
  F f;
  Index rows, columns, tiles_per_block;
  KOKKOS_INLINE_FUNCTION void operator()(Index i) const {
    Index const block = i / tiles_per_block, column = (i - block * tiles_per_block) * tile_columns;
    f(Tile{block, block * rows_per_block, math::min((block + 1) * rows_per_block, rows), column,
           static_cast<int>(math::min(Index(tile_columns), columns - column))});
  }
};

/// Rows, then tiles, of one block, while the block is in the host's cache.
template <class R, class F>
struct Blocks {
  R rows_functor;
  Tiles<F> tiles;
  void operator()(Index block) const {
    Index const end = math::min((block + 1) * rows_per_block, tiles.rows);
    for (Index row = block * rows_per_block; row < end; ++row) rows_functor(HostLanes{}, row);
    for (Index t = 0; t < tiles.tiles_per_block; ++t) tiles(block * tiles.tiles_per_block + t);
  }
};

template <class F>
struct Spans {
  F f;
  Index n;
  KOKKOS_INLINE_FUNCTION void operator()(Index i) const {
    f(i * span_length, math::min((i + 1) * span_length, n));
  }
};

}  // namespace impl

/// f(Lanes, row) for each of `rows` rows of about `width` columns.
template <class F>
void for_rows(ExecSpace const& space, char const* label, Index rows, Index width, F const& f) {
  if (rows == 0) return;
  if constexpr (on_device) {
    int constexpr warp = 32;
    int const threads = static_cast<int>(math::max(Index(2), math::min(Index(16), width / (8 * warp))));
    Kokkos::parallel_for(label, Kokkos::TeamPolicy<ExecSpace>(space, static_cast<int>(rows), threads, warp),
                         impl::TeamRows<F>{f});
  } else {
    for_tasks(space, label, rows, rows * width, impl::HostRows<F>{f});
  }
}

/// f(Tile) for each tile of a (rows, columns) matrix.
template <class F>
void for_tiles(ExecSpace const& space, char const* label, Index rows, Index columns, F const& f) {
  if (rows == 0 || columns == 0) return;
  Index const per_block = blocks_of(columns, tile_columns);
  for_tasks(space, label, blocks_of(rows, rows_per_block) * per_block, rows * columns,
            impl::Tiles<F>{f, rows, columns, per_block});
}

/// row(Lanes, row) for all rows, then tile(Tile) for all tiles. A tile may read what `row` left of the rows
/// of its own block, not of other blocks: on the host a narrow matrix is done block by block.
template <class R, class F>
void for_rows_then_tiles(ExecSpace const& space, char const* label, Index rows, Index columns, R const& row,
                         F const& tile) {
  if constexpr (!on_device) {
    constexpr Index narrow = 4096;
    if (columns <= narrow) {
      for_tasks(
          space, label, blocks_of(rows, rows_per_block), rows * columns,
          impl::Blocks<R, F>{row, impl::Tiles<F>{tile, rows, columns, blocks_of(columns, tile_columns)}});
      return;
    }
  }
  for_rows(space, label, rows, columns, row);
  for_tiles(space, label, rows, columns, tile);
}

/// f(begin, end) for spans that make up [0, n).
template <class F>
void for_spans(ExecSpace const& space, char const* label, Index n, F const& f) {
  for_tasks(space, label, blocks_of(n, span_length), n, impl::Spans<F>{f, n});
}

/// Elements that the partial column sums of a (rows, columns) matrix take: partial[block * columns + column].
constexpr Index partial_sums_size(Index rows, Index columns) {
  return blocks_of(rows, rows_per_block) * columns;
}

namespace impl {

/// A few columns at a time on a host thread.
template <class T>
struct AddPartialSumsOnHost {
  static constexpr Index chunk = 64;
  T const* partial;
  T* sums;
  Index blocks, columns;
  void operator()(Index i) const {
    Index const begin = i * chunk, width = math::min(chunk, columns - begin);
    double total[chunk] = {};
    for (Index b = 0; b < blocks; ++b)
      for (Index c = 0; c < width; ++c) total[c] += static_cast<double>(partial[b * columns + begin + c]);
    for (Index c = 0; c < width; ++c) sums[begin + c] += static_cast<T>(total[c]);
  }
};

/// A team per column.
template <class T>
struct AddPartialSumsOnDevice {
  T const* partial;
  T* sums;
  Index blocks, columns;
  KOKKOS_INLINE_FUNCTION void operator()(Lanes const& lanes, Index c) const {
    double const total = lanes.template sum<double>(
        blocks, [&](Index b) { return static_cast<double>(partial[b * columns + c]); });
    lanes.once([&] { sums[c] += static_cast<T>(total); });
  }
};

}  // namespace impl

/// sums[c] += the partial sums of column c over all blocks, added up in double in a fixed order.
template <class T>
void add_partial_sums(ExecSpace const& space, char const* label, Index rows, Index columns, T const* partial,
                      T* sums) {
  Index const blocks = blocks_of(rows, rows_per_block);
  if constexpr (on_device) {
    for_rows(space, label, columns, blocks, impl::AddPartialSumsOnDevice<T>{partial, sums, blocks, columns});
  } else {
    using F = impl::AddPartialSumsOnHost<T>;
    for_tasks(space, label, blocks_of(columns, F::chunk), blocks * columns,
              F{partial, sums, blocks, columns});
  }
}

}  // namespace strata::kernels
