// SPDX-License-Identifier: Apache-2.0
#pragma once
// Rotary positions. Half-split pairs (c, c + d/2) inside an attention head; interleaved pairs (2i, 2i+1) over
// a whole stage width are part of stage_input.hpp. Both read cosines and sines from a table made once per
// call of a block.

#include "kernels/common/types.hpp"

namespace strata::kernels {

/// cosine_sine (length, d): columns [0, d/2) = cos(p * f[c]), columns [d/2, d) = sin(p * f[c]) with p = first
/// + row and f[c] = 10000^(-2c/d), the product taken in T as the reference implementations do. positions
/// (length) or null: row r stands for position first + positions[r] instead.
template <class T>
void rotary_table(ExecSpace const& space, Index first, Mat<T> cosine_sine, Index const* positions = nullptr);

/// Where a block's keys and values of all positions so far live: row lane * capacity + before + position,
/// columns [0, H*d) keys (already rotated), [H*d, 2*H*d) values. The first `before` rows of a lane are the
/// last positions of the sequence before its own (cross_patch.hpp).
template <class T>
struct KeyValues {
  Mat<T> data;         // (lanes * capacity, 2 * H * d)
  Index capacity = 0;  // rows per lane
  Index before = 0;
};

/// Cross-patch attention: how many last positions of the sequence before it each sequence sees as well.
struct Previous {
  Index const* seen = nullptr;  ///< (sequences) on the device; null: none
  Index total = 0;              ///< their sum, for costs

  KOKKOS_INLINE_FUNCTION Index operator()(Index k) const { return seen == nullptr ? 0 : seen[k]; }
};

/// qkv (rows, 3*H*d) = [queries | keys | values] as the projection made them. Rotates queries and keys by the
/// table (empty: no rotation), stores queries in q (rows, H*d) and keys and values at positions start ..
/// start + length - 1. Where shape.starts differ, the table has a row per sequence.
template <class T>
void split_rotate_forward(ExecSpace const& space, Sequences shape, Index start, Index heads,
                          ConstMat<T> cosine_sine, ConstMat<T> qkv, Mat<T> q, KeyValues<T> key_values);

/// The reverse: dqkv (rows, 3*H*d) = from dq (rows, H*d) and the gradient of the stored keys and values.
template <class T>
void split_rotate_backward(ExecSpace const& space, Sequences shape, Index start, Index heads,
                           ConstMat<T> cosine_sine, ConstMat<T> dq, KeyValues<T> dkey_values, Mat<T> dqkv);

template <class T>
Cost split_rotate_cost(Sequences shape, Index heads, Index head_dim);

}  // namespace strata::kernels
