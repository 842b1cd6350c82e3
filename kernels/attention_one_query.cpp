// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_one_query.hpp"

#include <algorithm>

#include "kernels/attention_one_query_blocks.hpp"
#include "kernels/common/check.hpp"
#include "kernels/common/math.hpp"

namespace strata::kernels {
namespace attention {
namespace {

/// The keys of a sequence are cut into at most so many pieces, of at least so many keys.
constexpr Index most_pieces = 64, least_keys = 256;

/// Keys of a piece: a function of the sequence's own length, so that its sums depend on nothing else.
KOKKOS_INLINE_FUNCTION constexpr Index keys_per_piece(Index seen) {
  Index const even = (seen + most_pieces - 1) / most_pieces;
  Index const whole = (even + block_keys - 1) / block_keys * block_keys;
  return whole < least_keys ? least_keys : whole;
}
KOKKOS_INLINE_FUNCTION constexpr Index pieces_of(Index seen) {
  return (seen + keys_per_piece(seen) - 1) / keys_per_piece(seen);
}
/// Enough for every sequence that has seen at most so many keys: shorter ones never have more pieces.
constexpr Index pieces_bound(Index seen) {
  return std::min(most_pieces, (seen + least_keys - 1) / least_keys);
}

/// One team per sequence, group of heads and piece of the keys.
template <class T>
struct OneQuery {
  AttentionShape shape;
  int heads_per_team;
  Index groups, pieces;
  ConstMat<T> q;
  KeyValues<T> key_values;
  Mat<T> o, log_sum;
  Vec<T> workspace;  ///< (sequence, piece): maxima (heads), totals (heads), sums (heads, d); or empty
  T scale;

  KOKKOS_INLINE_FUNCTION static std::size_t scratch(int heads, int d) {
    return static_cast<std::size_t>(heads) * (2 * d + block_keys + 3);
  }

  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    Index const piece = team.league_rank() % pieces, pair = team.league_rank() / pieces;
    Index const sequence = pair / groups, first_head = pair % groups * heads_per_team;
    Index const seen = keys_seen(sequence);
    bool const whole = workspace.data() == nullptr;
    Index const length = whole ? seen : keys_per_piece(seen);
    Index const begin = piece * length;
    if (begin >= seen) return;
    Index const end = seen - begin < length ? seen : begin + length;
    int const d = static_cast<int>(shape.head_dim);
    int const heads = shape.heads - first_head < heads_per_team ? static_cast<int>(shape.heads - first_head)
                                                                : heads_per_team;
    Index const step = key_values.data.stride(0);
    Scratch<T> scratch_memory(team, scratch(heads_per_team, d));
    T* const queries = scratch_memory.take(heads * d);
    T* const sum = scratch_memory.take(heads * d);
    T* const scores = scratch_memory.take(heads * block_keys);
    Softmax<T> const softmax{scratch_memory.take(heads), scratch_memory.take(heads), sum};
    T* const correction = scratch_memory.take(heads);
    T const* const keys =
        key_values.data.data() + first_row(shape, key_values, sequence) * step + first_head * d;
    Past<T> const past{keys, keys + shape.heads * d, step, end, heads, d, queries};

    for_elements(team, heads, d, [&](int const head, int const c) {
      queries[head * d + c] = scale * q(sequence, (first_head + head) * d + c);
      sum[head * d + c] = T(0);
    });
    for_elements(team, 1, heads, [&](int, int const head) {
      softmax.maximum[head] = hidden_score<T>;
      softmax.total[head] = T(0);
    });
    team.team_barrier();
    for (Index key = begin; key < end; key += block_keys) {
      int const count = end - key < block_keys ? static_cast<int>(end - key) : block_keys;
      score_block(team, past, key, count, scores);
      team.team_barrier();
      soften_block(team, heads, scores, softmax, correction);
      team.team_barrier();
      add_values(team, past, key, count, scores, correction, sum);
      team.team_barrier();
    }
    if (whole) {
      for_elements(team, heads, d, [&](int const head, int const c) {
        o(sequence, (first_head + head) * d + c) = sum[head * d + c] / softmax.total[head];
      });
      for_elements(team, 1, heads, [&](int, int const head) {
        log_sum(sequence, first_head + head) = softmax.maximum[head] + math::log(softmax.total[head]);
      });
      return;
    }
    Softmax<T> const to = result(sequence, piece);
    for_elements(team, heads, d, [&](int const head, int const c) {
      to.sum[(first_head + head) * d + c] = sum[head * d + c];
    });
    for_elements(team, 1, heads, [&](int, int const head) {
      to.maximum[first_head + head] = softmax.maximum[head];
      to.total[first_head + head] = softmax.total[head];
    });
  }

  KOKKOS_INLINE_FUNCTION Index keys_seen(Index sequence) const {
    return shape.previous(sequence) + shape.queries.start(sequence, shape.start) + 1;
  }
  KOKKOS_INLINE_FUNCTION static constexpr Index elements_per_piece(AttentionShape const& shape) {
    return shape.heads * (shape.head_dim + 2);
  }
  KOKKOS_INLINE_FUNCTION Softmax<T> result(Index sequence, Index piece) const {
    T* const at = workspace.data() + (sequence * pieces + piece) * elements_per_piece(shape);
    return {at, at + shape.heads, at + 2 * shape.heads};
  }
};

/// Joins the pieces of each head of each sequence, in their order.
template <class T>
struct JoinPieces {
  OneQuery<T> parts;

  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    AttentionShape const& shape = parts.shape;
    Index const sequence = team.league_rank() / shape.heads, head = team.league_rank() % shape.heads;
    Index const pieces = pieces_of(parts.keys_seen(sequence));
    T most = hidden_score<T>, total = 0;
    for (Index piece = 0; piece < pieces; ++piece) {
      T const maximum = parts.result(sequence, piece).maximum[head];
      most = maximum > most ? maximum : most;
    }
    team.team_barrier();
    for_elements(team, 1, static_cast<int>(pieces), [&](int, int const piece) {
      T& factor = parts.result(sequence, piece).maximum[head];  // no longer needed as a maximum
      factor = math::exp(factor - most);
    });
    team.team_barrier();
    for (Index piece = 0; piece < pieces; ++piece) {
      Softmax<T> const part = parts.result(sequence, piece);
      total += part.maximum[head] * part.total[head];
    }
    int const d = static_cast<int>(shape.head_dim);
    for_elements(team, 1, d, [&](int, int const c) {
      T sum = 0;
      for (Index piece = 0; piece < pieces; ++piece) {
        Softmax<T> const part = parts.result(sequence, piece);
        sum += part.maximum[head] * part.sum[head * d + c];
      }
      parts.o(sequence, head * d + c) = sum / total;
    });
    for_elements(team, 1, 1, [&](int, int) { parts.log_sum(sequence, head) = most + math::log(total); });
  }
};

/// Heads of a team: as many as leave every thread a team, since heads lie side by side in memory.
inline int choose_heads(ExecSpace const& space, Index heads, Index teams_per_group) {
  if constexpr (on_device) {
    return 1;
  } else {
    Index const groups = (space.concurrency() + teams_per_group - 1) / teams_per_group;
    return static_cast<int>(std::max<Index>(1, heads / groups));
  }
}

/// A GPU's teams are warps, which read neighbouring elements together.
template <class T>
Policy make_warps_policy(ExecSpace const& space, Index league, std::size_t elements) {
  if constexpr (on_device) {
    constexpr int warps = 8, warp = 32;
    auto const bytes = Kokkos::PerTeam(static_cast<int>(elements * sizeof(T)) + 64);
    return Policy(space, static_cast<int>(league), warps, warp).set_scratch_size(shared_level, bytes);
  } else {
    return make_policy<T>(space, league, elements);
  }
}

}  // namespace

template <class T>
void one_query_forward(ExecSpace const& space, AttentionShape const& shape, ConstMat<T> q,
                       KeyValues<T> key_values, Mat<T> o, Mat<T> log_sum, Vec<T> workspace) {
  AttentionShape latest = shape;  // with the last keys that any sequence may see
  latest.start += key_values.before;
  STRATA_REQUIRE(workspace.data() == nullptr ||
                     static_cast<Index>(workspace.extent(0)) >= attention_forward_workspace(latest),
                 "workspace of " << workspace.extent(0));
  Index const pieces = workspace.data() == nullptr ? 1 : pieces_bound(latest.start + 1);
  // One piece needs no join, which would multiply it by one.
  if (pieces == 1) workspace = {};
  int const heads = choose_heads(space, shape.heads, shape.queries.count * pieces);
  Index const groups = (shape.heads + heads - 1) / heads;
  T const scale = static_cast<T>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  OneQuery<T> const kernel{shape, heads, groups, pieces, q, key_values, o, log_sum, workspace, scale};
  auto const elements = OneQuery<T>::scratch(heads, static_cast<int>(shape.head_dim));
  Kokkos::parallel_for("strata::attention::one_query",
                       make_warps_policy<T>(space, shape.queries.count * groups * pieces, elements), kernel);
  if (pieces > 1)
    Kokkos::parallel_for("strata::attention::join_pieces",
                         make_policy<T>(space, shape.queries.count * shape.heads, 0), JoinPieces<T>{kernel});
}

#define STRATA_ONE_QUERY(T)                                                                              \
  template void one_query_forward<T>(ExecSpace const&, AttentionShape const&, ConstMat<T>, KeyValues<T>, \
                                     Mat<T>, Mat<T>, Vec<T>);
STRATA_INSTANTIATE(STRATA_ONE_QUERY)

}  // namespace attention

Index attention_forward_workspace(AttentionShape shape) {
  if (shape.queries.length != 1) return 0;
  return shape.queries.count * attention::pieces_bound(shape.start + 1) * shape.heads * (shape.head_dim + 2);
}

}  // namespace strata::kernels
