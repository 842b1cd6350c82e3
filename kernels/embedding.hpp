// SPDX-License-Identifier: Apache-2.0
#pragma once
// Bytes to vectors. A batch of byte windows is held as bytes only; every stage gathers the embeddings of the
// sub-patches it reads straight from them.

#include "kernels/common/types.hpp"

namespace strata::kernels {

/// A batch of token windows on the device: bytes, or 16-bit ids where special tokens are in use. Window b
/// holds lengths[b] tokens and counts as padded with `pad` up to padded_length, without the padding being
/// stored.
struct Tokens {
  std::uint8_t const* bytes = nullptr;  ///< (windows, stride), or null
  std::uint16_t const* ids = nullptr;   ///< (windows, stride), or null
  Index const* lengths = nullptr;       ///< (windows)
  Index windows = 0;
  Index stride = 0;
  Index padded_length = 0;
  std::int32_t pad = 0;
  bool ring = false;  ///< a window's tokens lie in a ring: in front of its first place is its last

  /// Token of the padded batch: window = flat / padded_length.
  KOKKOS_INLINE_FUNCTION std::int32_t operator()(Index flat) const {
    Index const window = flat / padded_length;
    Index const position = flat - window * padded_length;
    if (position >= lengths[window]) return pad;
    return bytes ? std::int32_t(bytes[window * stride + position])
                 : std::int32_t(ids[window * stride + position]);
  }
};

/// The rows of one stage that a call works on: `sequences` whole or partial sequences, positions
/// [first_position, first_position + length) of each. Position 0 of a sequence is its start vector; position
/// t > 0 reads sub-patch t - 1. Sequence k covers `patches` sub-patches of `patch_bytes` bytes each.
/// With shape.starts the first position of sequence k is starts[k], and first_position says only whether
/// these are start vectors (0), all of them, or not.
struct StageRows {
  Index first_sequence = 0;
  Sequences shape;
  Index first_position = 0;
  Index patches = 1;
  Index patch_bytes = 1;
  /// (count) on the device: the byte of the batch at which sequence k begins, where sequences do not lie side
  /// by side; null otherwise.
  Index const* origins = nullptr;
  /// Bytes in front of each sequence's first sub-patch here that are embedded with them. In front of a window
  /// stand pads.
  Index lead = 0;

  /// 1 when row 0 of each sequence is a start vector and so embeds nothing.
  KOKKOS_INLINE_FUNCTION Index starts() const { return first_position == 0 ? 1 : 0; }
  /// Rows of one sequence that embed a sub-patch, and of all of them.
  KOKKOS_INLINE_FUNCTION Index embedded_length() const { return shape.length - starts(); }
  KOKKOS_INLINE_FUNCTION Index embedded_rows() const { return shape.count * embedded_length(); }
  /// The first sub-patch that rows read, within its sequence.
  KOKKOS_INLINE_FUNCTION Index first_patch() const { return first_position + starts() - 1; }
  /// Bytes that one sequence embeds, lead included, and all of them.
  KOKKOS_INLINE_FUNCTION Index bytes_per_sequence() const {
    return embedded_length() == 0 ? 0 : lead + embedded_length() * patch_bytes;
  }
  KOKKOS_INLINE_FUNCTION Index embedded_bytes() const { return shape.count * bytes_per_sequence(); }
  /// First byte (of the padded batch) of the first sub-patch that a sequence reads here.
  KOKKOS_INLINE_FUNCTION Index first_byte(Index sequence) const {
    Index const position = shape.start(sequence, first_position) + starts();
    if (origins != nullptr) return origins[sequence] + (position - 1) * patch_bytes;
    return ((first_sequence + sequence) * patches + position - 1) * patch_bytes;
  }
  /// The same rows of sequences [first, first + n) only.
  StageRows part(Index first, Index n) const {
    StageRows some = *this;
    some.first_sequence += first;
    some.shape = shape.part(first, n);
    if (origins != nullptr) some.origins += first;
    return some;
  }
};

/// y (embedded_bytes, D) = embeddings of the bytes of each sequence's sub-patches, with those of its lead in
/// front: without a lead also (embedded_rows, patch_bytes * D). table (V, D). Tokens, pads included, must be
/// below V.
template <class T>
void embedding_forward(ExecSpace const& space, Tokens const& tokens, StageRows const& rows, ConstMat<T> table,
                       Mat<T> y);

/// dtable (V, D) +=, in an order that only the tokens decide (no atomics); row `frozen` (or none if negative)
/// receives nothing. workspace: embedding_workspace(rows, vocabulary) elements of Index.
template <class T>
void embedding_backward(ExecSpace const& space, Tokens const& tokens, StageRows const& rows, ConstMat<T> dy,
                        Index frozen, Mat<T> dtable, Vec<Index> workspace);
Index embedding_workspace(StageRows const& rows, Index vocabulary);

template <class T>
Cost embedding_forward_cost(StageRows const& rows, Index width);
template <class T>
Cost embedding_backward_cost(StageRows const& rows, Index width);

}  // namespace strata::kernels
