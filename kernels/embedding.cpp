// SPDX-License-Identifier: Apache-2.0
#include "kernels/embedding.hpp"

#include <algorithm>

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/tasks.hpp"

namespace strata::kernels {
namespace {

/// The embedded bytes of a call in order: entry q = k * bytes_per_sequence + i is byte i of sequence k, lead
/// included.
struct Entries {
  Tokens tokens;
  StageRows rows;

  KOKKOS_INLINE_FUNCTION Index count() const { return rows.embedded_bytes(); }
  KOKKOS_INLINE_FUNCTION Index token(Index q) const {
    Index const k = q / rows.bytes_per_sequence();
    Index const first = rows.first_byte(k);
    Index flat = first + q - k * rows.bytes_per_sequence() - rows.lead;
    if (flat < first && flat < first / tokens.padded_length * tokens.padded_length) {
      if (!tokens.ring) return tokens.pad;
      flat += tokens.padded_length;
    }
    return tokens(flat);
  }
  /// body(q, token) for q in [begin, end), with divisions only where a sequence or a window begins.
  template <class Body>
  KOKKOS_INLINE_FUNCTION void for_each(Index begin, Index end, Body const& body) const {
    for (Index q = begin; q < end;) {
      Index const k = q / rows.bytes_per_sequence();
      Index const i = q - k * rows.bytes_per_sequence();
      Index const first = rows.first_byte(k);
      Index const flat = first + i - rows.lead;
      Index const window = (i < rows.lead ? first : flat) / tokens.padded_length;
      Index position = flat - window * tokens.padded_length;
      Index stop = q + rows.bytes_per_sequence() - i;
      if (position < 0) {
        if (stop > q - position) stop = q - position;
        if (stop > end) stop = end;
        if (!tokens.ring) {
          for (; q < stop; ++q) body(q, Index(tokens.pad));
          continue;
        }
        position += tokens.padded_length;
      }
      if (stop > q + tokens.padded_length - position) stop = q + tokens.padded_length - position;
      if (stop > end) stop = end;
      Index const stored = q + tokens.lengths[window] - position;  // entries from here on are padding
      Index const from = window * tokens.stride + position - q;
      for (; q < stop; ++q) {
        body(q, q >= stored    ? Index(tokens.pad)
                : tokens.bytes ? Index(tokens.bytes[from + q])
                               : Index(tokens.ids[from + q]));
      }
    }
  }
};

/// Entries are sorted in blocks whose number depends on the call's shape only: enough for the threads of a
/// device, and so few that the blocks' counts take no more room than the order itself.
Index sort_blocks(Index entries, Index vocabulary) {
  Index const least = on_device ? 128 : 4096;
  Index const most = on_device ? 1024 : 64;
  return std::clamp(entries / std::max(least, vocabulary), Index(1), most);
}

/// A stable counting sort of the entries by token. Nothing in it depends on the number of threads.
struct TokenSort {
  Entries entries;
  Index vocabulary;
  Index blocks;
  Index block_size;
  Index* order;  ///< (entries) entry numbers, token by token
  Index*
      counts;  ///< (blocks, vocabulary) occurrences, then each block's first place within its token's entries
  Index* starts;  ///< (vocabulary + 1) first place of each token's entries in `order`

  using value_type = Index;
  struct Count {};
  struct Total {};
  struct Scan {};
  struct Scatter {};

  KOKKOS_INLINE_FUNCTION Index end_of(Index block) const {
    Index const end = (block + 1) * block_size;
    return end < entries.count() ? end : entries.count();
  }
  KOKKOS_INLINE_FUNCTION void operator()(Count, Index block) const {
    Index* const count = counts + block * vocabulary;
    for (Index v = 0; v < vocabulary; ++v) count[v] = 0;
    entries.for_each(block * block_size, end_of(block), [=](Index, Index v) { ++count[v]; });
  }
  KOKKOS_INLINE_FUNCTION void operator()(Total, Index v) const {
    Index sum = 0;
    for (Index block = 0; block < blocks; ++block) {
      Index const here = counts[block * vocabulary + v];
      counts[block * vocabulary + v] = sum;
      sum += here;
    }
    starts[v + 1] = sum;
  }
  KOKKOS_INLINE_FUNCTION void operator()(Scan, Index v, Index& sum, bool final) const {
    if (v > 0) sum += starts[v];
    if (final) starts[v] = sum;
  }
  KOKKOS_INLINE_FUNCTION void operator()(Scatter, Index block) const {
    Index* const place = counts + block * vocabulary;
    Index* const to = order;
    Index const* const start = starts;
    entries.for_each(block * block_size, end_of(block),
                     [=](Index q, Index v) { to[start[v] + place[v]++] = q; });
  }
};

void sort_by_token(ExecSpace const& space, TokenSort const& sort) {
  using Kokkos::RangePolicy;
  if (!on_device && sort.blocks == 1) {
    // Shorter than a handful of hand-overs to the threads.
    sort(TokenSort::Count{}, 0);
    for (Index v = 0; v < sort.vocabulary; ++v) sort(TokenSort::Total{}, v);
    Index sum = 0;
    for (Index v = 0; v <= sort.vocabulary; ++v) sort(TokenSort::Scan{}, v, sum, true);
    sort(TokenSort::Scatter{}, 0);
    return;
  }
  Kokkos::parallel_for("strata::embedding::count",
                       RangePolicy<ExecSpace, TokenSort::Count>(space, 0, sort.blocks), sort);
  Kokkos::parallel_for("strata::embedding::total",
                       RangePolicy<ExecSpace, TokenSort::Total>(space, 0, sort.vocabulary), sort);
  Kokkos::parallel_scan("strata::embedding::scan",
                        RangePolicy<ExecSpace, TokenSort::Scan>(space, 0, sort.vocabulary + 1), sort);
  Kokkos::parallel_for("strata::embedding::scatter",
                       RangePolicy<ExecSpace, TokenSort::Scatter>(space, 0, sort.blocks), sort);
}

using TeamPolicy = Kokkos::TeamPolicy<ExecSpace>;
using Member = TeamPolicy::member_type;
constexpr int warp = 32;

template <class T>
struct Gather {
  static constexpr Index entries_per_team = 8;
  Entries entries;
  ConstMat<T> table;
  Mat<T> y;

  KOKKOS_INLINE_FUNCTION void operator()(Index q) const {
    T const* const from = &table(entries.token(q), 0);
    T* const to = &y(q, 0);
    for (Index d = 0; d < Index(table.extent(1)); ++d) to[d] = from[d];
  }
  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, int(entries_per_team)), [&](int n) {
      Index const q = Index(team.league_rank()) * entries_per_team + n;
      if (q >= entries.count()) return;
      T const* const from = &table(entries.token(q), 0);
      T* const to = &y(q, 0);
      Kokkos::parallel_for(Kokkos::ThreadVectorRange(team, Index(table.extent(1))),
                           [&](Index d) { to[d] = from[d]; });
    });
  }
};

/// Sums of one token's rows of dy over one tile of columns. The order in which a column is summed depends on
/// the tokens alone, not on the tiles.
template <class T>
struct SumRows {
  static constexpr Index widest = 512;  ///< features a host sums side by side, in the first-level cache
  static constexpr Index strands =
      16;  ///< a device sums this many stretches of a token's entries side by side
  Index const* order;
  Index const* starts;
  ConstMat<T> dy;
  Mat<T> dtable;
  Index frozen;
  Index tile;
  Index tiles;

  void operator()(Index item) const {
    Index const v = item / tiles;
    Index const begin = starts[v], end = starts[v + 1];
    if (v == frozen || begin == end) return;
    Index const first = (item - v * tiles) * tile;
    Index const width = std::min(tile, Index(dtable.extent(1)) - first);
    T* const out = &dtable(v, first);
    constexpr Index run = 128;  // the sums of runs are added, so that rounding errors stay small
    T part[widest];
    for (Index place = begin; place < end;) {
      for (Index d = 0; d < width; ++d) part[d] = T(0);
      Index const stop = std::min(place + run, end);
      for (; place < stop; ++place) {
        T const* const row = &dy(order[place], first);
        for (Index d = 0; d < width; ++d) part[d] += row[d];
      }
      for (Index d = 0; d < width; ++d) out[d] += part[d];
    }
  }
  /// Team of `strands` threads by a warp of columns; the strands' sums are added in their order.
  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    Index const v = Index(team.league_rank()) / tiles;
    Index const begin = starts[v], length = starts[v + 1] - begin;
    if (v == frozen || length == 0) return;
    Index const first = (Index(team.league_rank()) - v * tiles) * tile;
    Index const width = Index(dtable.extent(1)) - first < tile ? Index(dtable.extent(1)) - first : tile;
    T* const sums = static_cast<T*>(team.team_shmem().get_shmem(int(strands * warp * Index(sizeof(T)))));
    Index const share = (length + strands - 1) / strands;
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, int(strands)), [&](int s) {
      Index const from = begin + s * share;
      Index const to = from + share < begin + length ? from + share : begin + length;
      Kokkos::parallel_for(Kokkos::ThreadVectorRange(team, int(width)), [&](int d) {
        T sum = 0;
        for (Index place = from; place < to; ++place) sum += dy(order[place], first + d);
        sums[s * warp + d] = sum;
      });
    });
    team.team_barrier();
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, 1), [&](int) {
      Kokkos::parallel_for(Kokkos::ThreadVectorRange(team, int(width)), [&](int d) {
        T sum = 0;
        for (Index s = 0; s < strands; ++s) sum += sums[s * warp + d];
        dtable(v, first + d) += sum;
      });
    });
  }
  static std::size_t scratch() { return std::size_t(strands * warp) * sizeof(T) + 2 * sizeof(double); }
};

void check(Tokens const& tokens, StageRows const& rows, std::size_t y_rows, std::size_t y_columns,
           std::size_t width) {
  STRATA_REQUIRE(tokens.padded_length > 0 && (tokens.bytes || tokens.ids) && tokens.lengths,
                 "tokens are incomplete");
  STRATA_REQUIRE(y_rows == std::size_t(rows.embedded_bytes()) && y_columns == width,
                 rows.embedded_bytes()
                     << " bytes of width " << width << ", span is (" << y_rows << ", " << y_columns << ")");
}

}  // namespace

template <class T>
void embedding_forward(ExecSpace const& space, Tokens const& tokens, StageRows const& rows, ConstMat<T> table,
                       Mat<T> y) {
  KernelScope const timed("embedding_forward",
                          [&] { return embedding_forward_cost<T>(rows, table.extent(1)); });
  Entries const entries{tokens, rows};
  Index const count = entries.count();
  if (count <= 0 || table.extent(1) == 0) return;
  check(tokens, rows, y.extent(0), y.extent(1), table.extent(1));
  Gather<T> const gather{entries, table, y};
  if constexpr (on_device) {
    Index const teams = (count + Gather<T>::entries_per_team - 1) / Gather<T>::entries_per_team;
    Kokkos::parallel_for("strata::embedding::forward",
                         TeamPolicy(space, int(teams), int(Gather<T>::entries_per_team), warp), gather);
  } else {
    for_tasks(space, "strata::embedding::forward", count, count * Index(table.extent(1)), gather);
  }
}

template <class T>
void embedding_backward(ExecSpace const& space, Tokens const& tokens, StageRows const& rows, ConstMat<T> dy,
                        Index frozen, Mat<T> dtable, Vec<Index> workspace) {
  KernelScope const timed("embedding_backward",
                          [&] { return embedding_backward_cost<T>(rows, dtable.extent(1)); });
  Entries const entries{tokens, rows};
  Index const count = entries.count();
  if (count <= 0 || dtable.extent(1) == 0) return;
  check(tokens, rows, dy.extent(0), dy.extent(1), dtable.extent(1));
  Index const vocabulary = Index(dtable.extent(0));
  Index const width = Index(dtable.extent(1));
  STRATA_REQUIRE(Index(workspace.extent(0)) >= embedding_workspace(rows, vocabulary),
                 workspace.extent(0) << " elements of " << embedding_workspace(rows, vocabulary));

  Index const blocks = sort_blocks(count, vocabulary);
  Index* const order = workspace.data();
  Index* const counts = order + count;
  Index* const starts = counts + blocks * vocabulary;
  sort_by_token(space, {entries, vocabulary, blocks, (count + blocks - 1) / blocks, order, counts, starts});

  // On a host whole rows are read, unless few tokens (DNA has four) would leave threads without work.
  Index const even = (2 * width / Index(space.concurrency()) + 63) / 64 * 64;
  Index const tile = on_device ? warp : std::clamp(even, Index(64), SumRows<T>::widest);
  Index const tiles = (width + tile - 1) / tile;
  SumRows<T> const sum{order, starts, dy, dtable, frozen, tile, tiles};
  if constexpr (on_device) {
    auto policy = TeamPolicy(space, int(vocabulary * tiles), int(SumRows<T>::strands), warp);
    Kokkos::parallel_for("strata::embedding::sum",
                         policy.set_scratch_size(0, Kokkos::PerTeam(int(SumRows<T>::scratch()))), sum);
  } else {
    if (is_little(count * width + vocabulary)) {
      for (Index task = 0; task < vocabulary * tiles; ++task) sum(task);
      return;
    }
    // Dynamic: a token's work is as uneven as the text; each task's result does not depend on who runs it.
    Kokkos::parallel_for("strata::embedding::sum",
                         Kokkos::RangePolicy<ExecSpace, Kokkos::Schedule<Kokkos::Dynamic>>(
                             space, 0, vocabulary * tiles, Kokkos::ChunkSize(1)),
                         sum);
  }
}

Index embedding_workspace(StageRows const& rows, Index vocabulary) {
  Index const count = std::max(Index(0), rows.embedded_bytes());
  return count + sort_blocks(count, vocabulary) * vocabulary + vocabulary + 1;
}

template <class T>
Cost embedding_forward_cost(StageRows const& rows, Index width) {
  double const entries = double(rows.embedded_bytes());
  return {entries * (1 + sizeof(T) * double(width)), entries * sizeof(T) * double(width), 0};
}

template <class T>
Cost embedding_backward_cost(StageRows const& rows, Index width) {
  double const entries = double(rows.embedded_bytes());
  // Tokens are read twice and the order is written and read once; the table's gradient stays in cache.
  return {entries * (2 + sizeof(Index) + sizeof(T) * double(width)), entries * sizeof(Index),
          entries * double(width)};
}

#define STRATA_EMBEDDING(T)                                                                                  \
  template void embedding_forward<T>(ExecSpace const&, Tokens const&, StageRows const&, ConstMat<T>,         \
                                     Mat<T>);                                                                \
  template void embedding_backward<T>(ExecSpace const&, Tokens const&, StageRows const&, ConstMat<T>, Index, \
                                      Mat<T>, Vec<Index>);                                                   \
  template Cost embedding_forward_cost<T>(StageRows const&, Index);                                          \
  template Cost embedding_backward_cost<T>(StageRows const&, Index);
STRATA_INSTANTIATE(STRATA_EMBEDDING)

}  // namespace strata::kernels
