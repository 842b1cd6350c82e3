// SPDX-License-Identifier: Apache-2.0
#pragma once
// Root-mean-square norm with the token shift folded in, and LayerNorm.
//
// shift_rms_norm, per row t of a sequence, D features, the last `shifted` of them taken from the row before:
//   s[t, j] = x[t, j] for j < D - shifted,  x[t-1, j] otherwise;  x[-1] is `previous` (zero when empty)
//   y[t, j] = s[t, j] * r[t] * gain[j]
//   r = 1 / max(|s| / sqrt(D), 1e-8)          (RmsForm::clamped, Transformer stages)
//   r = 1 / sqrt(|s|^2 / D + 1e-5)            (RmsForm::epsilon, state-space stages)
// shifted = 0 is the plain norm; the Transformer's token shift is shifted = floor(D / 2) (MEGABYTE).
//
// layer_norm: y = (x - mean) * inverse_std * gain + bias, biased variance, 1e-5 under the root.
//
// Accumulation (all kernels): gradients of parameters are added to, gradients of activations are overwritten,
// except where a name says `accumulate` or the contract below says +=.

#include "kernels/common/types.hpp"

namespace strata::kernels {

enum class RmsForm { clamped, epsilon };

/// x, y (shape.rows(), D); previous (lanes, shifted) or empty; inverse_norm (rows) out, needed by
/// backward. residual (rows, D) or empty: additionally receives x (+ residual_bias (D) if not empty), i.e.
/// the residual stream that the sub-layer's last product is then added to. y and residual must not alias x.
template <class T>
void shift_rms_norm_forward(ExecSpace const& space, Sequences shape, RmsForm form, Index shifted,
                            ConstMat<T> x, ConstMat<T> previous, ConstVec<T> gain, Mat<T> y,
                            Vec<T> inverse_norm, Mat<T> residual, ConstVec<T> residual_bias);

/// dx (rows, D) += the gradient of x through the norm (dx usually holds the residual stream's gradient
/// already). dnext (count, shifted) or empty: gradient of the features that the last row lends to the row
/// after the span. dprevious (count, shifted) or empty: = gradient of `previous`. dgain (D) +=. workspace:
/// shift_rms_norm_workspace(shape, D) elements.
template <class T>
void shift_rms_norm_backward(ExecSpace const& space, Sequences shape, RmsForm form, Index shifted,
                             ConstMat<T> dy, ConstMat<T> x, ConstMat<T> previous, ConstVec<T> gain,
                             ConstVec<T> inverse_norm, ConstMat<T> dnext, Mat<T> dx, Mat<T> dprevious,
                             Vec<T> dgain, Vec<T> workspace);
Index shift_rms_norm_workspace(Sequences shape, Index width);

/// The shifted features of each sequence's last row, for the span that follows: border (lanes, shifted).
template <class T>
void last_rows(ExecSpace const& space, Sequences shape, ConstMat<T> x, Mat<T> border);

/// Without the optional residual.
template <class T>
Cost shift_rms_norm_forward_cost(Sequences shape, Index width);
template <class T>
Cost shift_rms_norm_backward_cost(Sequences shape, Index width);

/// x, y (rows, D); y may be x. mean, inverse_std (rows) out.
template <class T>
void layer_norm_forward(ExecSpace const& space, ConstMat<T> x, ConstVec<T> gain, ConstVec<T> bias, Mat<T> y,
                        Vec<T> mean, Vec<T> inverse_std);

/// dx (rows, D) = ; dx may be dy. dgain, dbias (D) +=. workspace: layer_norm_workspace(rows, D) elements.
template <class T>
void layer_norm_backward(ExecSpace const& space, ConstMat<T> dy, ConstMat<T> x, ConstVec<T> gain,
                         ConstVec<T> mean, ConstVec<T> inverse_std, Mat<T> dx, Vec<T> dgain, Vec<T> dbias,
                         Vec<T> workspace);
Index layer_norm_workspace(Index rows, Index width);

template <class T>
Cost layer_norm_forward_cost(Index rows, Index width);
template <class T>
Cost layer_norm_backward_cost(Index rows, Index width);

}  // namespace strata::kernels
