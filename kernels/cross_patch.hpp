// SPDX-License-Identifier: Apache-2.0
#pragma once
// Cross-patch attention (MEGABYTE, arXiv 2305.07185, "Cross-patch attention"): a sequence of an inner stage
// also sees the keys and values of the last r positions of the sequence before it. They are copied into the
// KeyValues::before = r rows that precede its own, keys turned to the positions -r .. -1, so that rotary
// positions go on across the border. Which sequences have one before them: Previous, r or 0 each.

#include "kernels/common/types.hpp"
#include "kernels/rotary.hpp"

namespace strata::kernels {

/// seen (count) = r for those of the sequences first, first + 1, ... that have one before them in this
/// batch, else 0: the batch's first one and every multiple of `period`, which begins a window, have none.
void mark_previous(ExecSpace const& space, Index first, Index period, Index r, Vec<Index> seen);

/// Fills the rows before each sequence that has one before it, from qkv (rows, 3*H*d) as in split_rotate.
/// cosine_sine (r, d) for positions -r .. -1, or empty. Sequences are whole and lie side by side;
/// r <= shape.length.
template <class T>
void cross_patch_forward(ExecSpace const& space, Sequences shape, Previous previous, Index heads,
                         ConstMat<T> cosine_sine, ConstMat<T> qkv, KeyValues<T> key_values);

/// The reverse: dqkv += what the rows before the sequences received.
template <class T>
void cross_patch_backward(ExecSpace const& space, Sequences shape, Previous previous, Index heads,
                          ConstMat<T> cosine_sine, KeyValues<T> dkey_values, Mat<T> dqkv);

/// For generation: before the lanes of shape.slots (null: all) begin their next sequence, the last rows of
/// the one that ends, `rows` >= key_values.before positions long, become the rows before. cosine_sine (1, d)
/// for position -rows, or empty.
template <class T>
void cross_patch_next(ExecSpace const& space, Sequences shape, Index rows, Index heads,
                      ConstMat<T> cosine_sine, KeyValues<T> key_values);

}  // namespace strata::kernels
