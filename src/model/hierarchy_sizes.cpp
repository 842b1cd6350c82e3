// SPDX-License-Identifier: Apache-2.0
// How large a batch, its chunks and its work are.
#include <algorithm>

#include "model/hierarchy.hpp"

namespace strata::model {

using kernels::StageRows;

namespace {

/// Automatic chunk sizes in matrix elements (rows * width). On a CPU an inner chunk's arrays should stay in
/// cache, yet hold enough rows for matrix products at full speed; a GPU wants enough rows to fill it
/// (doc/architecture.md).
constexpr Index inner_elements = kernels::on_device ? Index(1) << 25 : Index(1) << 18;
constexpr Index least_inner_rows = 512;
constexpr Index most_inner_rows = kernels::on_device ? Index(1) << 17 : Index(1) << 13;
constexpr Index outer_elements = kernels::on_device ? Index(1) << 25 : Index(1) << 20;
constexpr Index least_outer_rows = 256;

Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

}  // namespace

template <class T>
Index Hierarchy<T>::padded_length(Index length) const {
  Index const bytes = config_.bytes_per_position(0);
  return ceil_div(length, bytes) * bytes;
}

/// Positions per time chunk of `windows` sequences of `length` rows.
template <class T>
Index Hierarchy<T>::chunk_of(Index windows, Index length) const {
  if (!config_.block[0].causal()) return length;  // a bidirectional stage sees its sequence whole
  if (chunking_.outer_positions > 0) return std::min(length, chunking_.outer_positions);
  Index const total_rows = std::max(least_outer_rows, outer_elements / config_.hidden_dims[0]);
  return std::min(length, std::max<Index>(1, total_rows / windows));
}

template <class T>
Index Hierarchy<T>::inner_chunk(std::size_t stage, Index sequences_in_batch) const {
  Index const length = config_.rows(stage, config_.seq_lens[stage]);
  Index chunk_rows = chunking_.inner_rows;
  if (chunk_rows == 0)
    chunk_rows = std::clamp(inner_elements / config_.hidden_dims[stage], least_inner_rows, most_inner_rows);
  Index chunk = std::max<Index>(1, chunk_rows / length);
  if (!chunking_.checkpoint_chunks.empty())
    chunk = std::min(chunk, ceil_div(sequences_in_batch, chunking_.checkpoint_chunks[stage - 1]));
  return std::min(chunk, sequences_in_batch);
}

template <class T>
Index Hierarchy<T>::outer_chunk(Index windows, Index length) const {
  return chunk_of(windows, config_.rows(0, padded_length(length) / config_.bytes_per_position(0)));
}

template <class T>
Index Hierarchy<T>::outer_chunks(Index windows, Index length) const {
  return ceil_div(config_.rows(0, padded_length(length) / config_.bytes_per_position(0)),
                  outer_chunk(windows, length));
}

template <class T>
Index Hierarchy<T>::inner_chunk_rows(std::size_t stage, Index windows, Index length) const {
  Index const sequence = config_.seq_lens[stage] * config_.bytes_per_position(stage);
  return inner_chunk(stage, windows * padded_length(length) / sequence) *
         config_.rows(stage, config_.seq_lens[stage]);
}

template <class T>
double Hierarchy<T>::forward_flops(Index windows, Index length, bool square) const {
  Index const padded = padded_length(length);
  double sum = 0;
  Index last_rows = 0;
  for (std::size_t s = 0; s < config_.stages(); ++s) {
    StageRows r;
    r.patch_bytes = config_.bytes_per_position(s);
    r.patches = s == 0 ? padded / r.patch_bytes : config_.seq_lens[s];
    r.shape = {windows * padded / (r.patches * r.patch_bytes), config_.rows(s, r.patches)};
    Index const previous_total = config_.block[s].cross_patch_attention * (r.shape.count - windows);
    sum += stages_[s]->forward_flops(r, square, previous_total);
    last_rows = r.shape.rows();
  }
  return sum + 2.0 * static_cast<double>(last_rows) * static_cast<double>(config_.hidden_dims.back()) *
                   static_cast<double>(config_.num_tokens);
}

#define STRATA_HIERARCHY_SIZES(T)                                                 \
  template Index Hierarchy<T>::padded_length(Index) const;                        \
  template Index Hierarchy<T>::chunk_of(Index, Index) const;                      \
  template Index Hierarchy<T>::inner_chunk(std::size_t, Index) const;             \
  template Index Hierarchy<T>::outer_chunk(Index, Index) const;                   \
  template Index Hierarchy<T>::outer_chunks(Index, Index) const;                  \
  template Index Hierarchy<T>::inner_chunk_rows(std::size_t, Index, Index) const; \
  template double Hierarchy<T>::forward_flops(Index, Index, bool) const;
STRATA_INSTANTIATE(STRATA_HIERARCHY_SIZES)

}  // namespace strata::model
