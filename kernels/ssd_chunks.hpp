// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the forward and backward passes of the state-space dual form share: how the positions are cut into
// chunks, what lies in the workspace, and the states at chunk borders. doc/kernels/ssd.md has the formulas.
//
// A team works on one chunk of one sequence, in the later steps on a block of its heads. In a team's scratch
// and in the workspace rows are padded to whole registers: `lanes` positions, `features` features, `states`
// numbers.

#include "kernels/common/math.hpp"
#include "kernels/common/team_tiles.hpp"
#include "kernels/ssd.hpp"

namespace strata::kernels::ssd {

using namespace tiles;

/// How a call is cut up. It depends on the shape alone, so that sums have the same order on any number of
/// threads.
struct Plan {
  SsdShape shape;
  Index chunk, chunks;    ///< positions of a chunk, chunks of a sequence
  Index head_blocks;      ///< teams that share a chunk
  Index heads_per_block;  ///< heads that a team goes through
  bool enters, leaves;    ///< a state comes in, or is wanted, at the ends of the span

  KOKKOS_INLINE_FUNCTION Index all_chunks() const { return shape.sequences.count * chunks; }
  KOKKOS_INLINE_FUNCTION int positions(Index c) const {
    Index const remaining = shape.sequences.length - c * chunk;
    return static_cast<int>(remaining < chunk ? remaining : chunk);
  }
  /// Whether the state before, or behind, chunk c counts.
  KOKKOS_INLINE_FUNCTION bool state_before(Index c) const { return c > 0 || enters; }
  KOKKOS_INLINE_FUNCTION bool state_behind(Index c) const { return c + 1 < chunks || leaves; }
  bool has_states() const { return chunks > 1 || enters || leaves; }
};

template <class T>
KOKKOS_INLINE_FUNCTION int lanes_of(Plan const& plan) {
  return padded<T>(plan.chunk);
}
template <class T>
KOKKOS_INLINE_FUNCTION int features_of(Plan const& plan) {
  return padded<T>(plan.shape.head_width);
}
template <class T>
KOKKOS_INLINE_FUNCTION Index state_size(Plan const& plan) {
  return plan.shape.state * features_of<T>(plan);
}

Plan make_plan(SsdShape const& shape, bool enters, bool leaves);

/// Pairs of positions within chunks, and positions next to a chunk border within a sequence, of all
/// sequences.
double visible_pairs(Plan const& plan);
double rows_with_state(Plan const& plan);

/// Teams that keep a machine busy; a chunk's heads are shared out until there are so many.
inline constexpr Index enough_teams = on_device ? 1024 : 64;

/// No less than head blocks * rows of this call or of a shorter one, so that no shorter call needs more
/// workspace.
inline Index most_partial_rows(Plan const& plan) {
  Index const rows = plan.shape.sequences.rows(), bound = enough_teams * plan.chunk + rows;
  return plan.shape.heads == 1 ? 0 : bound < plan.shape.heads * rows ? bound : plan.shape.heads * rows;
}

/// Pieces of the workspace, or their sizes when it starts at null.
template <class T>
struct Pieces {
  T* step;        ///< (all chunks, heads, lanes): softplus of dt
  T* decay_sum;   ///< (all chunks, heads, lanes): L_i, the sum of step a up to and with position i of the
                  ///< chunk
  T* scores;      ///< (all chunks, chunk, lanes): C_i . B_j in row j
  T* borders;     ///< (sequences, chunks + 1, heads, N, features): states
  T* dborders;    ///< backward: their gradients, likewise
  T* db;          ///< backward: (head blocks, rows, N) when more than one team adds to a row
  T* dc;          ///< backward: likewise
  T* parameters;  ///< backward: (all chunks, 3, heads) parts of the gradients of dt_bias, a_log and d
  Index size;

  Pieces(T* base, Plan const& plan, bool backward) {
    Index const heads = plan.shape.heads, lanes = lanes_of<T>(plan), chunks = plan.all_chunks();
    Index const borders_size =
        plan.has_states() ? plan.shape.sequences.count * (plan.chunks + 1) * heads * state_size<T>(plan) : 0;
    Index const partial = most_partial_rows(plan) * plan.shape.state;
    size = 0;
    auto const take = [&](Index elements) {
      T* const at = base == nullptr ? nullptr : base + size;
      size += (elements + 15) / 16 * 16;
      return at;
    };
    step = take(chunks * heads * lanes);
    decay_sum = take(chunks * heads * lanes);
    scores = take(chunks * plan.chunk * lanes);
    borders = take(borders_size);
    dborders = take(backward ? borders_size : 0);
    db = take(backward ? partial : 0);
    dc = take(backward ? partial : 0);
    parameters = take(backward ? chunks * 3 * heads : 0);
  }
};

/// Where a team stands.
struct Place {
  Index chunk_id;  ///< of all sequences' chunks
  Index sequence, chunk;
  Index row;  ///< first row of the chunk
  Index first_head, end_head;
  int count;  ///< positions of the chunk

  KOKKOS_INLINE_FUNCTION Place(Plan const& plan, Index team, Index blocks) {
    Index const block = team % blocks;
    chunk_id = team / blocks;
    sequence = chunk_id / plan.chunks;
    chunk = chunk_id % plan.chunks;
    row = sequence * plan.shape.sequences.length + chunk * plan.chunk;
    first_head = block * plan.heads_per_block;
    Index const end = first_head + plan.heads_per_block;
    end_head = blocks == 1 || end > plan.shape.heads ? plan.shape.heads : end;
    count = plan.positions(chunk);
  }
};

/// The lanes of row j that hold positions j and later; whole registers and whole tiles start there.
KOKKOS_INLINE_FUNCTION constexpr int first_lane(int j, int width) {
  int const group = greatest(width, tile_rows);
  return j / group * group;
}

/// The sum of a[i] * b[i].
template <class T>
KOKKOS_FORCEINLINE_FUNCTION T dot(int n, T const* a, T const* b) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// Fills step, decay_sum, scores, and the states at all borders. initial (count, heads * N * p) or empty: the
/// state before the span; last, likewise: takes the state behind it, and may be `initial`.
template <class T>
void prepare(ExecSpace const& space, Plan const& plan, SsdInputs<T> const& in, ConstMat<T> initial,
             Mat<T> last, Pieces<T> const& pieces);

/// Completes dborders from what each chunk alone adds to the gradient of the state before it. dstate (count,
/// heads * N * p) or empty goes from the gradient behind the span to that before it.
template <class T>
void pass_gradients(ExecSpace const& space, Plan const& plan, Mat<T> dstate, Pieces<T> const& pieces);

/// Checks the arguments forward and backward share.
template <class T>
void require_shapes(SsdShape const& shape, SsdInputs<T> const& in, ConstMat<T> y, ConstMat<T> state);

}  // namespace strata::kernels::ssd
