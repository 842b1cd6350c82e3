// SPDX-License-Identifier: Apache-2.0
#pragma once
// A causal depthwise convolution with a SiLU, and its input beside it: a layer of the convolutional patch
// encoder (Yu et al. 2023, arXiv 2305.07185, section 2.3.1; model/patch_convolutions.hpp). Per channel c,
// with a filter of F rows, F = 3, 5 or 7:
//   y[t, c] = x[t + F - 1, c] + silu(bias[c] + sum over w of weight[c, w] x[t + w, c])
// Only rows with F inputs are computed: each of x's sequences is F - 1 rows longer than y's and begins with
// the rows before them.

#include "kernels/common/types.hpp"

namespace strata::kernels {

/// `shape` is that of y (shape.rows(), C); x (shape.count * (shape.length + F - 1), C); weight (C, F);
/// bias (C).
template <class T>
void residual_conv_forward(ExecSpace const& space, Sequences shape, ConstMat<T> x, ConstMat<T> weight,
                           ConstVec<T> bias, Mat<T> y);

/// dx (as x) = ; dweight (C, F), dbias (C) +=. workspace: residual_conv_workspace(rows of x, C, F) elements.
template <class T>
void residual_conv_backward(ExecSpace const& space, Sequences shape, ConstMat<T> dy, ConstMat<T> x,
                            ConstMat<T> weight, ConstVec<T> bias, Mat<T> dx, Mat<T> dweight, Vec<T> dbias,
                            Vec<T> workspace);
Index residual_conv_workspace(Index input_rows, Index channels, Index inputs);

template <class T>
Cost residual_conv_forward_cost(Sequences shape, Index channels, Index inputs);
template <class T>
Cost residual_conv_backward_cost(Sequences shape, Index channels, Index inputs);

}  // namespace strata::kernels
