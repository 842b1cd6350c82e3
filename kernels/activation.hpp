// SPDX-License-Identifier: Apache-2.0
#pragma once
// Bias + exact GELU + dropout of the feed-forward sub-layer, in one pass over the product h = u W^T:
//   y = keep * gelu(h + bias),  gelu(x) = x Phi(x) = x/2 (1 + erf(x / sqrt 2)),  gelu'(x) = Phi(x) + x phi(x)

#include "kernels/common/types.hpp"
#include "kernels/dropout.hpp"

namespace strata::kernels {

/// h, y (rows, F); bias (F). y may be h.
template <class T>
void bias_gelu_forward(ExecSpace const& space, ConstMat<T> h, ConstVec<T> bias, Dropout const& dropout,
                       Mat<T> y);

/// dh (rows, F) = ; dh may be dy. dbias (F) +=. workspace: bias_gelu_workspace(rows, F) elements.
template <class T>
void bias_gelu_backward(ExecSpace const& space, ConstMat<T> dy, ConstMat<T> h, ConstVec<T> bias,
                        Dropout const& dropout, Mat<T> dh, Vec<T> dbias, Vec<T> workspace);
Index bias_gelu_workspace(Index rows, Index width);

template <class T>
Cost bias_gelu_forward_cost(Index rows, Index width);
template <class T>
Cost bias_gelu_backward_cost(Index rows, Index width);

}  // namespace strata::kernels
