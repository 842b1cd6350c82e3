// SPDX-License-Identifier: Apache-2.0
#pragma once
// How a state-space layer's output y meets its gate z, E features per row:
//   silu_gate       o = y * silu(z)                                              (Mamba-1)
//   gated_rms_norm  g = y * silu(z),  o = g * r * gain,  r = 1 / sqrt(mean(g^2) + 1e-5)   (Mamba-2)
// and the elementwise dropout of a layer's output. Matrices may be ranges of columns of wider ones.

#include "kernels/common/types.hpp"
#include "kernels/dropout.hpp"

namespace strata::kernels {

/// y, z, o (rows, E); o may be y.
template <class T>
void silu_gate_forward(ExecSpace const& space, ConstMat<T> y, ConstMat<T> z, Mat<T> o);
/// dy, dz (rows, E) = ; dy may be dout, dz must be neither.
template <class T>
void silu_gate_backward(ExecSpace const& space, ConstMat<T> dout, ConstMat<T> y, ConstMat<T> z, Mat<T> dy,
                        Mat<T> dz);

/// y, z, o (rows, E), gain (E), inverse_norm (rows) out; o must not be y.
template <class T>
void gated_rms_norm_forward(ExecSpace const& space, ConstMat<T> y, ConstMat<T> z, ConstVec<T> gain, Mat<T> o,
                            Vec<T> inverse_norm);
/// dy, dz (rows, E) = ; dy may be dout, dz must be neither. dgain (E) +=. workspace:
/// gated_rms_norm_workspace(rows, E) elements.
template <class T>
void gated_rms_norm_backward(ExecSpace const& space, ConstMat<T> dout, ConstMat<T> y, ConstMat<T> z,
                             ConstVec<T> gain, ConstVec<T> inverse_norm, Mat<T> dy, Mat<T> dz, Vec<T> dgain,
                             Vec<T> workspace);
Index gated_rms_norm_workspace(Index rows, Index width);

/// y (rows, D) += keep * x, where keep is the dropout's factor of each element.
template <class T>
void add_dropped(ExecSpace const& space, Dropout const& dropout, ConstMat<T> x, Mat<T> y);
/// y (rows, D) = keep * x: its backward.
template <class T>
void drop(ExecSpace const& space, Dropout const& dropout, ConstMat<T> x, Mat<T> y);

template <class T>
Cost silu_gate_forward_cost(Index rows, Index width);
template <class T>
Cost silu_gate_backward_cost(Index rows, Index width);
template <class T>
Cost gated_rms_norm_forward_cost(Index rows, Index width);
template <class T>
Cost gated_rms_norm_backward_cost(Index rows, Index width);

}  // namespace strata::kernels
