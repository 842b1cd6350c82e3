// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/attention_blocks.hpp"
#include "kernels/common/math.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/tasks.hpp"

namespace strata::kernels {
namespace attention {

/// What one team of the backward pass computes.
enum class Part {
  all,          ///< all three gradients of one head of one sequence
  queries,      ///< dq of one block of queries
  keys_values,  ///< dk and dv of one block of keys
};

/// The probabilities of a block are computed again from the saved log_sum (Dao et al. 2022, algorithm 4). A
/// team owns all elements it adds to, so there are no atomics and the order of every sum is fixed.
template <Part part, class T>
struct Backward {
  static constexpr bool wants_queries = part != Part::keys_values;
  static constexpr bool wants_keys = part != Part::queries;

  AttentionShape shape;
  Blocks blocks;
  Index query_blocks, key_blocks;
  ConstMat<T> q;
  KeyValues<T> key_values;
  ConstMat<T> log_sum, dout;
  ConstVec<T> row_sums;
  Dropout dropout;
  Mat<T> dq;
  KeyValues<T> dkey_values;
  T scale;

  static std::size_t elements(AttentionShape const& shape, Blocks const& b) {
    return 2 * shape.head_dim * b.query_lanes + (2 + 4 + ids_per_lane<T>)*b.query_lanes +
           2 * b.keys * b.query_lanes + b.keys * b.feature_lanes +
           (wants_queries ? b.queries * b.feature_lanes : 0) +
           (wants_keys ? 2 * b.queries * b.feature_lanes : 0);
  }

  Index league() const {
    return shape.queries.count * shape.heads *
           (part == Part::all       ? 1
            : part == Part::queries ? query_blocks
                                    : key_blocks);
  }

  /// A team's place in the problem and its scratch memory.
  struct Work {
    Index sequence, head;
    Index start;         // keys before the sequence's first query
    std::uint64_t* ids;  // (lanes), of the dropout stream
    T* keep;             // (4, lanes): dropout factors of four keys
    T* q_transposed;     // (head_dim, lanes), times scale
    T* dout_transposed;  // (head_dim, lanes)
    T* log_sums;         // (lanes)
    T* row_sums;         // (lanes)
    T* p;                // (keys, lanes): scores, then probabilities after dropout, transposed
    T* ds;               // (keys, lanes): gradient of the probabilities, then of the scores
    T* k;                // (keys, width)
    T* dq;               // (queries, width)
    T* q;                // (queries, width), times scale
    T* dout;             // (queries, width)
  };

  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    Index const parts = part == Part::all ? 1 : part == Part::queries ? query_blocks : key_blocks;
    Index const pair = team.league_rank() / parts;
    Index const number = team.league_rank() % parts;
    int const d = static_cast<int>(shape.head_dim), lanes = blocks.query_lanes, width = blocks.feature_lanes;
    Scratch<T> scratch(team, blocks.elements);
    Work work;
    work.sequence = pair / shape.heads;
    work.head = pair % shape.heads;
    work.start = shape.start + shape.previous(work.sequence);
    work.ids = take_ids(scratch, lanes);
    work.keep = scratch.take(4 * lanes);
    work.q_transposed = scratch.take(d * lanes);
    work.dout_transposed = scratch.take(d * lanes);
    work.log_sums = scratch.take(lanes);
    work.row_sums = scratch.take(lanes);
    work.p = scratch.take(blocks.keys * lanes);
    work.ds = scratch.take(blocks.keys * lanes);
    work.k = scratch.take(blocks.keys * width);
    work.dq = scratch.take(wants_queries ? blocks.queries * width : 0);
    work.q = scratch.take(wants_keys ? blocks.queries * width : 0);
    work.dout = scratch.take(wants_keys ? blocks.queries * width : 0);

    if constexpr (part == Part::queries) {
      query_block(team, work, query_blocks - 1 - number, 0, key_blocks);  // the longest first
    } else if constexpr (part == Part::keys_values) {
      Index const before = number * blocks.keys - work.start;  // queries that see no key of this block
      Index const first = shape.causal && before > 0 ? before / blocks.queries : 0;
      for (Index block = first; block < query_blocks; ++block)
        query_block(team, work, block, number, number + 1);
    } else {
      for (Index block = 0; block < query_blocks; ++block) query_block(team, work, block, 0, key_blocks);
    }
  }

  /// One block of queries with the blocks of keys in [begin, end) that it sees.
  KOKKOS_INLINE_FUNCTION void query_block(Member const& team, Work const& work, Index block, Index begin,
                                          Index end) const {
    int const d = static_cast<int>(shape.head_dim), lanes = blocks.query_lanes, width = blocks.feature_lanes;
    Index const first = block * blocks.queries;
    Index const remaining = shape.queries.length - first;
    int const queries = remaining < blocks.queries ? static_cast<int>(remaining) : blocks.queries;
    Index const row = work.sequence * shape.queries.length + first;
    T const* const q_rows = &q(row, work.head * d);
    T const* const dout_rows = &dout(row, work.head * d);
    team.team_barrier();
    copy_transposed(team, queries, d, q_rows, q.stride(0), scale, lanes, work.q_transposed);
    copy_transposed(team, queries, d, dout_rows, dout.stride(0), T(1), lanes, work.dout_transposed);
    if constexpr (wants_keys) {
      copy_rows(team, queries, d, q_rows, q.stride(0), scale, width, work.q);
      copy_rows(team, queries, d, dout_rows, dout.stride(0), T(1), width, work.dout);
    }
    for_elements(team, 1, lanes, [&](int, int const i) {
      work.log_sums[i] = i < queries ? log_sum(row + i, work.head) : T(0);
      work.row_sums[i] = i < queries ? row_sums[(row + i) * shape.heads + work.head] : T(0);
    });
    if (dropout.active()) copy_stream_rows(team, dropout, row, queries, lanes, work.ids);
    if constexpr (wants_queries) {
      for_elements(team, queries, width, [&](int const i, int const c) { work.dq[i * width + c] = T(0); });
    }
    Index const seen = work.start + (shape.causal ? first + queries : shape.queries.length);
    for (Index key = begin * blocks.keys; key < seen && key < end * blocks.keys; key += blocks.keys) {
      int const count = seen - key < blocks.keys ? static_cast<int>(seen - key) : blocks.keys;
      block_of_pairs(team, work, first, queries, key, count);
    }
    if constexpr (wants_queries) {
      team.team_barrier();
      for_elements(team, queries, d, [&](int const i, int const c) {
        dq(row + i, work.head * d + c) = scale * work.dq[i * width + c];
      });
    }
  }

  KOKKOS_INLINE_FUNCTION void block_of_pairs(Member const& team, Work const& work, Index first, int queries,
                                             Index key, int count) const {
    int const d = static_cast<int>(shape.head_dim), lanes = blocks.query_lanes, width = blocks.feature_lanes;
    Index const step = key_values.data.stride(0);
    T const* const k_rows =
        key_values.data.data() + (first_row(shape, key_values, work.sequence) + key) * step + work.head * d;
    T const* const v_rows = k_rows + shape.heads * d;
    Edge const edge(shape, work.start, first, key, count);

    team.team_barrier();
    if constexpr (wants_queries || on_device) copy_rows(team, count, d, k_rows, step, T(1), width, work.k);
    if constexpr (on_device) team.team_barrier();
    T const* const left = on_device ? work.k : k_rows;
    transposed_scores(team, left, on_device ? width : step, count, d, work.q_transposed, lanes, edge, work.p);
    transposed_scores(team, v_rows, step, count, d, work.dout_transposed, lanes, edge, work.ds);
    team.team_barrier();
    score_gradient(team, work, first, key, count, edge);
    team.team_barrier();

    if constexpr (wants_keys) {
      Index const to_step = dkey_values.data.stride(0);
      T* const dk_rows = dkey_values.data.data() +
                         (first_row(shape, dkey_values, work.sequence) + key) * to_step + work.head * d;
      T* const dv_rows = dk_rows + shape.heads * d;
      for_tiles<T>(team, count, width, [&](int const m, int const n) {
        int const rows = least(tile_rows, count - m), from = edge.first_query(m);
        multiply<Into::add>(Left<T>{work.p + m * lanes + from, lanes, 1}, work.dout + from * width + n, width,
                            queries - from, dv_rows + m * to_step + n, to_step, rows,
                            least(tile_columns<T>, d - n));
        multiply<Into::add>(Left<T>{work.ds + m * lanes + from, lanes, 1}, work.q + from * width + n, width,
                            queries - from, dk_rows + m * to_step + n, to_step, rows,
                            least(tile_columns<T>, d - n));
      });
    }
    if constexpr (wants_queries) {
      for_tiles<T>(team, queries, width, [&](int const m, int const n) {
        int const rows = least(tile_rows, queries - m);
        multiply<Into::add>(Left<T>{work.ds + m, 1, lanes}, work.k + n, width,
                            edge.keys_seen(m + rows - 1, count), work.dq + m * width + n, width, rows,
                            least(tile_columns<T>, width - n));
      });
    }
  }

  /// p = exp(score - log_sum) and ds = p (dp - row sum); with dropout dp counts kept keys only, and p loses
  /// the others. The softmax of a query that sees one key is 1 whatever its score, so the gradient there is 0
  /// to the last bit rather than a difference of two roundings.
  KOKKOS_INLINE_FUNCTION void score_gradient(Member const& team, Work const& work, Index first, Index key,
                                             int keys, Edge const edge) const {
    int const lanes = blocks.query_lanes;
    bool const sees_one_key =
        work.start == 0 && first == 0 && key == 0 && (shape.causal || shape.queries.length == 1);
    for_lanes(team, lanes, [&](int const begin, int const n) {
      T const* const log_sums = work.log_sums + begin;
      T const* const sums = work.row_sums + begin;
      for (int j = 0; j < keys; ++j) {
        T* const p = work.p + j * lanes + begin;
        T* const ds = work.ds + j * lanes + begin;
        int const hidden = least(edge.first_query(j) - begin, n);
        for (int i = 0; i < hidden; ++i) {
          p[i] = hidden_score<T>;
          ds[i] = T(0);
        }
        if (dropout.active()) {
          if (j % 4 == 0) {
            draw_four_keys(dropout, work.ids, (key + j) / 4, work.head, lanes, begin, n, work.keep);
          }
          T const* const keep = work.keep + j % 4 * lanes + begin;
          for (int i = 0; i < n; ++i) {
            T const probability = math::exp(p[i] - log_sums[i]);
            ds[i] = probability * (keep[i] * ds[i] - sums[i]);
            p[i] = keep[i] * probability;
          }
        } else {
          for (int i = 0; i < n; ++i) {
            p[i] = math::exp(p[i] - log_sums[i]);
            ds[i] = p[i] * (ds[i] - sums[i]);
          }
        }
        if (sees_one_key && begin == 0 && j == 0) ds[0] = T(0);
      }
    });
  }
};

/// sums (rows * heads) = dout . o of each row and head, which equals the sum over keys of p dp.
template <class T>
struct RowSums {
  Index heads;
  int head_dim;
  ConstMat<T> o, dout;
  Vec<T> sums;

  KOKKOS_INLINE_FUNCTION void operator()(Index const element) const {
    constexpr int ways = 8;  // independent chains of additions
    Index const row = element / heads, first = element % heads * head_dim;
    T const* const a = &o(row, first);
    T const* const b = &dout(row, first);
    T sum[ways] = {};
    int c = 0;
    for (; c + ways <= head_dim; c += ways) {
      for (int w = 0; w < ways; ++w) sum[w] += a[c + w] * b[c + w];
    }
    for (; c < head_dim; ++c) sum[0] += a[c] * b[c];
    for (int half = ways / 2; half > 0; half /= 2) {
      for (int w = 0; w < half; ++w) sum[w] += sum[w + half];
    }
    sums[element] = sum[0];
  }
};

template <Part part, class T>
void run_backward(ExecSpace const& space, AttentionShape const& shape, ConstMat<T> q, KeyValues<T> key_values,
                  ConstMat<T> log_sum, ConstMat<T> dout, ConstVec<T> row_sums, Dropout const& dropout,
                  Mat<T> dq, KeyValues<T> dkey_values, char const* label) {
  using Kernel = Backward<part, T>;
  Index const keys = key_values.before + shape.start + shape.queries.length;
  auto const blocks = choose_blocks<T>(
      shape, keys, [&](Blocks const& candidate) { return Kernel::elements(shape, candidate); });
  T const scale = static_cast<T>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  Kernel const kernel{shape,
                      blocks,
                      (shape.queries.length + blocks.queries - 1) / blocks.queries,
                      (keys + blocks.keys - 1) / blocks.keys,
                      q,
                      key_values,
                      log_sum,
                      dout,
                      row_sums,
                      dropout,
                      dq,
                      dkey_values,
                      scale};
  Kokkos::parallel_for(label, make_policy<T>(space, kernel.league(), blocks.elements), kernel);
}

}  // namespace attention

template <class T>
void attention_backward(ExecSpace const& space, AttentionShape shape, ConstMat<T> q, KeyValues<T> key_values,
                        ConstMat<T> o, ConstMat<T> log_sum, ConstMat<T> dout, Dropout const& dropout,
                        Mat<T> dq, KeyValues<T> dkey_values, Vec<T> workspace) {
  KernelScope const timed("attention_backward", [&] { return attention_backward_cost<T>(shape); });
  using attention::Part;
  attention::require_arguments<T>(shape, q, key_values);
  attention::require_arguments<T>(shape, dq, dkey_values);
  STRATA_REQUIRE(o.extent(0) == q.extent(0) && o.extent(1) == q.extent(1), "outputs " << o.extent(0));
  STRATA_REQUIRE(dout.extent(0) == q.extent(0) && dout.extent(1) == q.extent(1),
                 "gradients " << dout.extent(0));
  STRATA_REQUIRE(log_sum.extent(0) == q.extent(0) && static_cast<Index>(log_sum.extent(1)) == shape.heads,
                 "log sums " << log_sum.extent(0) << " x " << log_sum.extent(1));
  STRATA_REQUIRE(static_cast<Index>(workspace.extent(0)) >= attention_workspace(shape),
                 "workspace of " << workspace.extent(0));
  if (shape.queries.rows() == 0) return;

  Vec<T> const row_sums = range(workspace, 0, attention_workspace(shape));
  for_tasks(space, "strata::attention::row_sums", attention_workspace(shape), Index(o.size()),
            attention::RowSums<T>{shape.heads, static_cast<int>(shape.head_dim), o, dout, row_sums});
  // One pass per head of a sequence shares the probabilities between the three gradients; two passes spread
  // one sequence over more teams. The choice must not depend on the number of threads, or the sums would.
  Index const pairs = shape.queries.count * shape.heads;
  bool const one_pass = pairs >= (on_device ? 1024 : 8) || shape.queries.length <= 64;
  if (one_pass) {
    attention::run_backward<Part::all, T>(space, shape, q, key_values, log_sum, dout, row_sums, dropout, dq,
                                          dkey_values, "strata::attention::backward");
  } else {
    attention::run_backward<Part::queries, T>(space, shape, q, key_values, log_sum, dout, row_sums, dropout,
                                              dq, dkey_values, "strata::attention::backward_queries");
    attention::run_backward<Part::keys_values, T>(space, shape, q, key_values, log_sum, dout, row_sums,
                                                  dropout, dq, dkey_values,
                                                  "strata::attention::backward_keys_values");
  }
}

Index attention_workspace(AttentionShape shape) { return shape.queries.rows() * shape.heads; }

template <class T>
Cost attention_backward_cost(AttentionShape shape) {
  double const rows = shape.queries.rows(), heads = shape.heads, d = shape.head_dim;
  double const positions = attention::visible_positions(shape);
  double const pairs = heads * attention::visible_pairs(shape);
  Cost cost;
  cost.bytes_read = (rows * (3 * d + 1) + 4 * positions * d) * heads * sizeof(T);
  cost.bytes_written = (rows * d + 2 * positions * d) * heads * sizeof(T);
  // Four products (dv, dp, dk, dq), and per pair a difference and a multiplication.
  cost.flops = pairs * (8 * d + 2) + rows * heads * 4 * d;
  cost.model_flops = pairs * 8 * d;
  return cost;
}

#define STRATA_ATTENTION(T)                                                                          \
  template void attention_backward<T>(ExecSpace const&, AttentionShape, ConstMat<T>, KeyValues<T>,   \
                                      ConstMat<T>, ConstMat<T>, ConstMat<T>, Dropout const&, Mat<T>, \
                                      KeyValues<T>, Vec<T>);                                         \
  template Cost attention_backward_cost<T>(AttentionShape);
STRATA_INSTANTIATE(STRATA_ATTENTION)

}  // namespace strata::kernels
