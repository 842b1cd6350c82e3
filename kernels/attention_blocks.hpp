// SPDX-License-Identifier: Apache-2.0
#pragma once
// What attention's forward and backward share: how the scores are cut into blocks, and how one team walks
// over the elements of a block. doc/kernels/attention.md explains the layout.

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention.hpp"
#include "kernels/common/check.hpp"
#include "kernels/common/team_tiles.hpp"

namespace strata::kernels::attention {

using namespace tiles;

/// A block of scores: `queries` x `keys`, its scratch rows padded to whole registers.
struct Blocks {
  int queries = 1, keys = 1;
  int query_lanes = 1, feature_lanes = 1;
  std::size_t elements = 0;  ///< of scratch
};

/// The largest blocks whose scratch, `elements(blocks)` numbers, stays in a core's second-level cache or in a
/// GPU's shared memory; `keys`: the most that a query may see. They depend on the shape alone, so the sums
/// have the same order on any number of threads.
template <class T, class Elements>
Blocks choose_blocks(AttentionShape const& shape, Index keys, Elements const& elements) {
  constexpr std::size_t most_bytes = on_device ? 90 * 1024 : 512 * 1024;
  constexpr int smallest = 4;
  Blocks blocks;
  for (int size = 64;; size /= 2) {
    blocks.queries = static_cast<int>(std::min<Index>(size, shape.queries.length));
    blocks.keys = static_cast<int>(std::min<Index>(size, keys));
    blocks.query_lanes = padded<T>(blocks.queries);
    blocks.feature_lanes = padded<T>(shape.head_dim);
    blocks.elements = elements(blocks);
    if (blocks.elements * sizeof(T) <= most_bytes || size == smallest) return blocks;
  }
}

/// The score of a key that a query does not see: its exponential is 0 next to any score a query has. A
/// constant, since device code may not call std::numeric_limits.
template <class T>
inline constexpr T hidden_score = std::numeric_limits<T>::lowest();

/// Room for one number of the dropout stream, in elements.
template <class T>
inline constexpr int ids_per_lane = static_cast<int>((sizeof(std::uint64_t) + sizeof(T) - 1) / sizeof(T));

/// Scratch for numbers of the dropout stream, one per lane.
template <class T>
KOKKOS_INLINE_FUNCTION std::uint64_t* take_ids(Scratch<T>& scratch, int lanes) {
  return reinterpret_cast<std::uint64_t*>(scratch.take(lanes * ids_per_lane<T>));
}

/// ids (lanes) = the dropout stream's numbers of `rows` rows from `row` on; unused lanes repeat the first.
KOKKOS_INLINE_FUNCTION void copy_stream_rows(Member const& team, Dropout const& dropout, Index row, int rows,
                                             int lanes, std::uint64_t* ids) {
  for_elements(team, 1, lanes,
               [&](int, int const i) { ids[i] = dropout.stream_row(row + (i < rows ? i : 0)); });
}

/// keep (4, lanes) = the dropout factors of keys 4 * group .. 4 * group + 3 for lanes [begin, begin + n).
template <class T>
KOKKOS_INLINE_FUNCTION void draw_four_keys(Dropout const& dropout, std::uint64_t const* ids, Index group,
                                           Index head, int lanes, int begin, int n, T* keep) {
  for (int i = begin; i < begin + n; ++i) {
    auto const four = dropout.quad_scales<T>(ids[i], group, static_cast<std::uint32_t>(head));
    keep[i] = four[0];
    keep[lanes + i] = four[1];
    keep[2 * lanes + i] = four[2];
    keep[3 * lanes + i] = four[3];
  }
}

/// Where a block lies relative to the diagonal: query i of the block sees key j of the block when j <= edge +
/// i.
struct Edge {
  int edge;

  /// start: keys before query 0 of the sequence.
  KOKKOS_INLINE_FUNCTION Edge(AttentionShape const& shape, Index start, Index first_query, Index first_key,
                              int keys)
      : edge(keys) {
    Index const distance = start + first_query - first_key;
    if (shape.causal && distance < keys) edge = static_cast<int>(distance);
  }
  /// The first query that sees key j, and how many keys query i sees of `keys`.
  KOKKOS_INLINE_FUNCTION int first_query(int j) const { return greatest(0, j - edge); }
  KOKKOS_INLINE_FUNCTION int keys_seen(int i, int keys) const {
    return greatest(0, least(keys, edge + i + 1));
  }
};

/// scores (keys, lanes), transposed: row j = k_j . q_i for all queries i, from keys (rows of `step`) and the
/// transposed queries (head_dim, lanes). Tiles that no query sees are left as they are.
template <class T>
KOKKOS_INLINE_FUNCTION void transposed_scores(Member const& team, T const* keys, Index step, int count,
                                              int head_dim, T const* queries, int lanes, Edge const edge,
                                              T* scores) {
  for_tiles<T>(team, count, lanes, [&](int const m, int const n) {
    if (n + tile_columns<T> <= edge.first_query(m)) return;
    multiply<Into::set>(Left<T>{keys + m * step, step, 1}, queries + n, lanes, head_dim,
                        scores + m * lanes + n, lanes, least(tile_rows, count - m),
                        least(tile_columns<T>, lanes - n));
  });
}

/// The row of the keys and values at which the first key stands that a sequence sees.
template <class T>
KOKKOS_INLINE_FUNCTION Index first_row(AttentionShape const& shape, KeyValues<T> const& key_values,
                                       Index sequence) {
  return shape.queries.slot(sequence) * key_values.capacity + key_values.before - shape.previous(sequence);
}

/// Positions whose keys are seen, of all sequences together.
inline double visible_positions(AttentionShape const& shape) {
  return static_cast<double>(shape.queries.count) * static_cast<double>(shape.start + shape.queries.length) +
         static_cast<double>(shape.previous.total);
}

/// Pairs of a query and a key it sees, in one head of all sequences.
inline double visible_pairs(AttentionShape const& shape) {
  double const length = shape.queries.length, start = shape.start;
  return shape.queries.count *
             (shape.causal ? length * (start + (length + 1) / 2) : length * (start + length)) +
         length * static_cast<double>(shape.previous.total);
}

/// Checks the arguments forward and backward share.
template <class T>
void require_arguments(AttentionShape const& shape, ConstMat<T> q, KeyValues<T> const& key_values) {
  Index const width = shape.heads * shape.head_dim;
  STRATA_REQUIRE(shape.head_dim >= 1 && shape.head_dim <= 256, "head dimension " << shape.head_dim);
  STRATA_REQUIRE(
      static_cast<Index>(q.extent(0)) == shape.queries.rows() && static_cast<Index>(q.extent(1)) == width,
      "queries " << q.extent(0) << " x " << q.extent(1) << ", expected " << shape.queries.rows() << " x "
                 << width);
  STRATA_REQUIRE(
      shape.start >= 0 && key_values.before + shape.start + shape.queries.length <= key_values.capacity,
      "positions up to " << shape.start + shape.queries.length << " behind " << key_values.before
                         << ", capacity " << key_values.capacity);
  Index const lanes = shape.queries.slots == nullptr ? shape.queries.count : 1;
  STRATA_REQUIRE(static_cast<Index>(key_values.data.extent(0)) >= lanes * key_values.capacity &&
                     static_cast<Index>(key_values.data.extent(1)) == 2 * width,
                 "keys and values " << key_values.data.extent(0) << " x " << key_values.data.extent(1));
}

}  // namespace strata::kernels::attention
