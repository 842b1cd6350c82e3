// SPDX-License-Identifier: Apache-2.0
#pragma once
// The causal depthwise convolution of state-space layers with its SiLU (mblm "mamba2", Gu and Dao 2023,
// arXiv 2312.00752, section 3.4). Per channel c, with W inputs:
//   y[t, c] = silu(bias[c] + sum over w of weight[c, w] x[t - W + 1 + w, c])
// Inputs before a sequence's first row come from `previous`; they are zero where that is empty. A border is
// the W - 1 inputs around a cut, oldest first: (lanes, (W - 1) * C), element w * C + c.

#include "kernels/common/types.hpp"

namespace strata::kernels {

/// x, y (shape.rows(), C); previous (lanes, (W - 1) * C) or empty; weight (C, W); bias (C).
template <class T>
void causal_conv_silu_forward(ExecSpace const& space, Sequences shape, ConstMat<T> x, ConstMat<T> previous,
                              ConstMat<T> weight, ConstVec<T> bias, Mat<T> y);

/// The last W - 1 inputs of each sequence, for the span that follows: next (lanes, (W - 1) * C). previous may
/// be empty, and may be `next` itself.
template <class T>
void causal_conv_border(ExecSpace const& space, Sequences shape, ConstMat<T> x, ConstMat<T> previous,
                        Mat<T> next);

/// dx (rows, C) = ; dweight (C, W), dbias (C) +=. dborder (count, (W - 1) * C) or empty: goes from the
/// gradient of the border behind the span to that of the border before it. dy is overwritten.
/// workspace: causal_conv_workspace(shape, C, W) elements.
template <class T>
void causal_conv_silu_backward(ExecSpace const& space, Sequences shape, Mat<T> dy, ConstMat<T> x,
                               ConstMat<T> previous, ConstMat<T> weight, ConstVec<T> bias, Mat<T> dx,
                               Mat<T> dborder, Mat<T> dweight, Vec<T> dbias, Vec<T> workspace);
Index causal_conv_workspace(Sequences shape, Index channels, Index inputs);

template <class T>
Cost causal_conv_silu_forward_cost(Sequences shape, Index channels, Index inputs);
template <class T>
Cost causal_conv_silu_backward_cost(Sequences shape, Index channels, Index inputs);

}  // namespace strata::kernels
