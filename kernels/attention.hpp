// SPDX-License-Identifier: Apache-2.0
#pragma once
// Softmax attention, blockwise with an online softmax: memory linear in the sequence, only one number per row
// and head (the log of the softmax's denominator) is saved for backward.
//   S[i, j] = q_i . k_j / sqrt(d),  j <= i when causal;  o_i = sum_j keep[i, j] softmax(S)[i, j] v_j
// Queries are rows start .. start + length - 1 of their sequence; keys and values are all rows 0 .. start +
// length - 1. Without causality every query sees every key. With `previous` the queries of a sequence see
// that many last rows of key_values.before as well, which stand before the sequence's own (cross_patch.hpp).

#include "kernels/common/types.hpp"
#include "kernels/dropout.hpp"
#include "kernels/rotary.hpp"

namespace strata::kernels {

struct AttentionShape {
  Sequences queries;
  Index start = 0;
  Index heads = 1;
  Index head_dim = 1;
  bool causal = true;
  Previous previous = {};
};

/// q, o (rows, H*d), head h in columns [h*d, (h+1)*d); log_sum (rows, H) out.
/// Sequence k finds its keys and values at row queries.slot(k) * capacity + before. With queries.starts (one
/// query per sequence, no dropout) it has seen queries.start(k, start) positions of its own before this one,
/// and `start` is only an upper bound of them: a sequence's results do not depend on it, nor on the other
/// sequences. workspace, for one query per sequence: attention_forward_workspace elements (start counts
/// key_values.before), or empty. With it
/// the keys of a sequence are spread over threads, without it only the heads. The two round differently from
/// 256 keys on; either gives the same bits on any number of threads.
template <class T>
void attention_forward(ExecSpace const& space, AttentionShape shape, ConstMat<T> q, KeyValues<T> key_values,
                       Dropout const& dropout, Mat<T> o, Mat<T> log_sum, Vec<T> workspace = {});
Index attention_forward_workspace(AttentionShape shape);

/// dq (rows, H*d) = ; dkey_values += (rows of earlier spans and of this one). Columns and capacity as
/// key_values. workspace: rows * H elements (row sums of dout * o).
template <class T>
void attention_backward(ExecSpace const& space, AttentionShape shape, ConstMat<T> q, KeyValues<T> key_values,
                        ConstMat<T> o, ConstMat<T> log_sum, ConstMat<T> dout, Dropout const& dropout,
                        Mat<T> dq, KeyValues<T> dkey_values, Vec<T> workspace);
Index attention_workspace(AttentionShape shape);

/// Useful work only: the pairs a causal mask removes are not counted, nor what backward computes twice.
template <class T>
Cost attention_forward_cost(AttentionShape shape);
template <class T>
Cost attention_backward_cost(AttentionShape shape);

}  // namespace strata::kernels
