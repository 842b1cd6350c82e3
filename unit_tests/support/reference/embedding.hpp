// SPDX-License-Identifier: Apache-2.0
#pragma once
// Embedding of sub-patches for any scalar, written from the layout of a padded batch: the oracle of
// kernels/embedding.hpp.

#include <cstddef>
#include <vector>

namespace strata::test::reference {

/// Which part of a stage is worked on, in plain numbers: `count` sequences from `first_sequence`, positions
/// [first_position, first_position + length) of each; a sequence covers `patches` sub-patches of
/// `patch_bytes` bytes.
struct Span {
  std::size_t first_sequence, count, first_position, length, patches, patch_bytes;
};

/// A padded batch written out: every window's tokens followed by pads, window after window.
inline std::vector<int> padded_batch(std::vector<std::vector<int>> const& windows, std::size_t padded_length,
                                     int pad) {
  std::vector<int> batch;
  for (auto const& window : windows) {
    for (std::size_t i = 0; i < padded_length; ++i) batch.push_back(i < window.size() ? window[i] : pad);
  }
  return batch;
}

/// The tokens of the embedded sub-patches in order: position t > 0 of a sequence reads its sub-patch t - 1.
inline std::vector<int> embedded_tokens(Span const& span, std::vector<int> const& batch) {
  std::vector<int> tokens;
  for (std::size_t k = span.first_sequence; k < span.first_sequence + span.count; ++k) {
    for (std::size_t t = span.first_position; t < span.first_position + span.length; ++t) {
      if (t == 0) continue;
      std::size_t const patch = k * span.patches + t - 1;
      for (std::size_t i = 0; i < span.patch_bytes; ++i)
        tokens.push_back(batch[patch * span.patch_bytes + i]);
    }
  }
  return tokens;
}

/// table (V, D) -> one row of D per token, in order.
template <class S>
std::vector<S> embed(std::vector<int> const& tokens, std::vector<S> const& table, std::size_t width) {
  std::vector<S> y;
  for (int const token : tokens) {
    for (std::size_t d = 0; d < width; ++d) y.push_back(table[std::size_t(token) * width + d]);
  }
  return y;
}

/// Gradient of the table (V, D); row `frozen` stays zero.
template <class S>
std::vector<S> embed_gradient(std::vector<int> const& tokens, std::vector<S> const& dy,
                              std::size_t vocabulary, std::size_t width, int frozen) {
  std::vector<S> dtable(vocabulary * width);
  for (std::size_t q = 0; q < tokens.size(); ++q) {
    if (tokens[q] == frozen) continue;
    for (std::size_t d = 0; d < width; ++d) dtable[std::size_t(tokens[q]) * width + d] += dy[q * width + d];
  }
  return dtable;
}

}  // namespace strata::test::reference
