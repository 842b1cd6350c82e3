// SPDX-License-Identifier: Apache-2.0
#pragma once
// y = x W^T + b and its gradients, as matrix products of the BLAS behind Kokkos Kernels (cuBLAS on CUDA).
// x (M, K), weight (N, K), y (M, N); every matrix may be a range of columns of a wider one. M, N, K may be 0.

#include "kernels/common/types.hpp"

namespace strata::kernels {

/// On a host, the forward products of up to so many rows treat every row by itself: row m of y has the same
/// bits whatever M is, whatever the other rows hold and whatever the number of threads. With more rows, and
/// on a device, the order of the sums is the library's choice and may change with M.
inline constexpr Index independent_rows = 64;

/// y = x W^T, plus bias (N) if that is not empty.
template <class T>
void linear_forward(ExecSpace const& space, ConstMat<T> x, ConstMat<T> weight, ConstVec<T> bias, Mat<T> y);
/// y += x W^T.
template <class T>
void linear_forward_accumulate(ExecSpace const& space, ConstMat<T> x, ConstMat<T> weight, Mat<T> y);
/// dx = dy W.
template <class T>
void linear_backward_input(ExecSpace const& space, ConstMat<T> dy, ConstMat<T> weight, Mat<T> dx);
/// dx += dy W.
template <class T>
void linear_backward_input_accumulate(ExecSpace const& space, ConstMat<T> dy, ConstMat<T> weight, Mat<T> dx);
/// dweight += dy^T x.
template <class T>
void linear_backward_weight(ExecSpace const& space, ConstMat<T> dy, ConstMat<T> x, Mat<T> dweight);

template <class T>
Cost linear_cost(Index rows, Index inputs, Index outputs);

}  // namespace strata::kernels
