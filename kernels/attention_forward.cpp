// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/attention_blocks.hpp"
#include "kernels/attention_one_query.hpp"
#include "kernels/common/check.hpp"
#include "kernels/common/math.hpp"
#include "kernels/common/profile.hpp"

namespace strata::kernels {
namespace attention {

/// One team per block of queries of one head, over all blocks of keys it sees (Milakov and Gimelshein 2018,
/// "Online normalizer calculation for softmax"; Dao et al. 2022, "FlashAttention", algorithm 1 with the loops
/// exchanged).
template <class T>
struct Forward {
  AttentionShape shape;
  Blocks blocks;
  Index query_blocks;
  ConstMat<T> q;
  KeyValues<T> key_values;
  Dropout dropout;
  Mat<T> o, log_sum;
  T scale;

  static std::size_t scratch(AttentionShape const& shape, Blocks const& b) {
    return shape.head_dim * b.query_lanes + b.queries * b.feature_lanes + b.keys * b.query_lanes +
           b.keys * b.feature_lanes + (4 + 4 + ids_per_lane<T>)*b.query_lanes;
  }

  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    Index const pair = team.league_rank() / query_blocks;
    Index const head = pair % shape.heads;
    Index const sequence = pair / shape.heads;
    // Causal blocks grow with their number; the longest come first, so that no thread is left with one at the
    // end.
    Index const first = (query_blocks - 1 - team.league_rank() % query_blocks) * blocks.queries;
    Index const row = sequence * shape.queries.length + first;
    Index const remaining = shape.queries.length - first;
    int const queries = remaining < blocks.queries ? static_cast<int>(remaining) : blocks.queries;
    int const d = static_cast<int>(shape.head_dim), lanes = blocks.query_lanes, width = blocks.feature_lanes;
    Index const step = key_values.data.stride(0);
    T const* const keys = key_values.data.data() + first_row(shape, key_values, sequence) * step + head * d;
    Index const start = shape.start + shape.previous(sequence);
    T const* const values = keys + shape.heads * d;

    Scratch<T> scratch(team, blocks.elements);
    std::uint64_t* const ids = take_ids(scratch, lanes);
    T* const keep = scratch.take(4 * lanes);
    T* const q_transposed = scratch.take(d * lanes);
    T* const sum = scratch.take(blocks.queries * width);
    T* const scores = scratch.take(blocks.keys * lanes);
    T* const staged = scratch.take(blocks.keys * width);
    T* const maximum = scratch.take(lanes);
    T* const total = scratch.take(lanes);
    T* const correction = scratch.take(lanes);
    T* const block_total = scratch.take(lanes);

    copy_transposed(team, queries, d, &q(row, head * d), q.stride(0), scale, lanes, q_transposed);
    for_elements(team, queries, width, [&](int const i, int const c) { sum[i * width + c] = T(0); });
    for_elements(team, 1, lanes, [&](int, int const i) {
      maximum[i] = hidden_score<T>;
      total[i] = T(0);
    });

    if (dropout.active()) copy_stream_rows(team, dropout, row, queries, lanes, ids);

    Index const seen = start + (shape.causal ? first + queries : shape.queries.length);
    for (Index key = 0; key < seen; key += blocks.keys) {
      int const count = seen - key < blocks.keys ? static_cast<int>(seen - key) : blocks.keys;
      Edge const edge(shape, start, first, key, count);
      if constexpr (on_device) {
        team.team_barrier();
        copy_rows(team, count, d, keys + key * step, step, T(1), width, staged);
        team.team_barrier();
        transposed_scores<T>(team, staged, width, count, d, q_transposed, lanes, edge, scores);
      } else {
        transposed_scores<T>(team, keys + key * step, step, count, d, q_transposed, lanes, edge, scores);
      }
      team.team_barrier();
      copy_rows(team, count, d, values + key * step, step, T(1), width, staged);
      soften(team, lanes, count, edge, scores, maximum, total, correction, block_total);
      if (dropout.active()) drop(team, ids, key, head, count, keep, scores);
      team.team_barrier();
      for_tiles<T>(team, queries, width, [&](int const m, int const n) {
        int const rows = least(tile_rows, queries - m);
        multiply<Into::scaled>(Left<T>{scores + m, 1, lanes}, staged + n, width,
                               edge.keys_seen(m + rows - 1, count), sum + m * width + n, width, rows,
                               least(tile_columns<T>, width - n), correction + m);
      });
    }
    team.team_barrier();
    for_elements(team, queries, d,
                 [&](int const i, int const c) { o(row + i, head * d + c) = sum[i * width + c] / total[i]; });
    for_elements(team, 1, queries,
                 [&](int, int const i) { log_sum(row + i, head) = maximum[i] + math::log(total[i]); });
  }

  /// scores -> exp(scores - new maximum), and the factor that brings earlier blocks to the new maximum.
  KOKKOS_INLINE_FUNCTION static void soften(Member const& team, int lanes, int keys, Edge const edge,
                                            T* scores, T* maximum, T* total, T* correction, T* block_total) {
    for_lanes(team, lanes, [&](int const begin, int const n) {
      T* const most = maximum + begin;
      T* const all = total + begin;
      T* const factor = correction + begin;
      T* const part = block_total + begin;
      for (int i = 0; i < n; ++i) factor[i] = most[i];
      for (int j = 0; j < keys; ++j) {
        T* const s = scores + j * lanes + begin;
        int const hidden = least(edge.first_query(j) - begin, n);
        for (int i = 0; i < hidden; ++i) s[i] = hidden_score<T>;
        for (int i = 0; i < n; ++i) most[i] = s[i] > most[i] ? s[i] : most[i];
      }
      for (int i = 0; i < n; ++i) {
        factor[i] = math::exp(factor[i] - most[i]);
        part[i] = 0;
      }
      for (int j = 0; j < keys; ++j) {
        T* const s = scores + j * lanes + begin;
        for (int i = 0; i < n; ++i) {
          T const p = math::exp(s[i] - most[i]);
          part[i] += p;
          s[i] = p;
        }
      }
      for (int i = 0; i < n; ++i) all[i] = factor[i] * all[i] + part[i];
    });
  }

  /// The denominator counts every key; only what is summed is dropped. Same element, same thread as in
  /// soften.
  KOKKOS_INLINE_FUNCTION void drop(Member const& team, std::uint64_t const* ids, Index key, Index head,
                                   int keys, T* keep, T* scores) const {
    int const lanes = blocks.query_lanes;
    for_lanes(team, lanes, [&](int const begin, int const n) {
      for (int j = 0; j < keys; ++j) {
        if (j % 4 == 0) draw_four_keys(dropout, ids, (key + j) / 4, head, lanes, begin, n, keep);
        for (int i = begin; i < begin + n; ++i) scores[j * lanes + i] *= keep[j % 4 * lanes + i];
      }
    });
  }
};

}  // namespace attention

template <class T>
void attention_forward(ExecSpace const& space, AttentionShape shape, ConstMat<T> q, KeyValues<T> key_values,
                       Dropout const& dropout, Mat<T> o, Mat<T> log_sum, Vec<T> workspace) {
  KernelScope const timed("attention_forward", [&] { return attention_forward_cost<T>(shape); });
  attention::require_arguments<T>(shape, q, key_values);
  STRATA_REQUIRE(o.extent(0) == q.extent(0) && o.extent(1) == q.extent(1), "outputs " << o.extent(0));
  STRATA_REQUIRE(log_sum.extent(0) == q.extent(0) && static_cast<Index>(log_sum.extent(1)) == shape.heads,
                 "log sums " << log_sum.extent(0) << " x " << log_sum.extent(1));
  STRATA_REQUIRE(
      shape.queries.starts == nullptr || (shape.queries.length == 1 && !dropout.active()),
      "own starts for " << shape.queries.length << " queries per sequence, dropout " << dropout.active());
  if (shape.queries.rows() == 0) return;
  if (shape.queries.length == 1 && !dropout.active()) {
    attention::one_query_forward<T>(space, shape, q, key_values, o, log_sum, workspace);
    return;
  }
  using Kernel = attention::Forward<T>;
  Index const keys = key_values.before + shape.start + shape.queries.length;
  auto const blocks = attention::choose_blocks<T>(
      shape, keys, [&](attention::Blocks const& candidate) { return Kernel::scratch(shape, candidate); });
  Index const query_blocks = (shape.queries.length + blocks.queries - 1) / blocks.queries;
  T const scale = static_cast<T>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  Kernel const kernel{shape, blocks, query_blocks, q, key_values, dropout, o, log_sum, scale};
  Kokkos::parallel_for(
      "strata::attention::forward",
      attention::make_policy<T>(space, shape.queries.count * shape.heads * query_blocks, blocks.elements),
      kernel);
}

template <class T>
Cost attention_forward_cost(AttentionShape shape) {
  double const rows = shape.queries.rows(), heads = shape.heads, d = shape.head_dim;
  double const positions = attention::visible_positions(shape);
  double const pairs = heads * attention::visible_pairs(shape);
  Cost cost;
  cost.bytes_read = (rows + 2 * positions) * heads * d * sizeof(T);
  cost.bytes_written = rows * heads * (d + 1) * sizeof(T);
  // Two products, and per pair a maximum, a difference, an exponential and a sum.
  cost.flops = pairs * (4 * d + 4) + rows * heads * (2 * d + 2);
  cost.model_flops = pairs * 4 * d;
  return cost;
}

#define STRATA_ATTENTION(T)                                                                       \
  template void attention_forward<T>(ExecSpace const&, AttentionShape, ConstMat<T>, KeyValues<T>, \
                                     Dropout const&, Mat<T>, Mat<T>, Vec<T>);                     \
  template Cost attention_forward_cost<T>(AttentionShape);
STRATA_INSTANTIATE(STRATA_ATTENTION)

}  // namespace strata::kernels
