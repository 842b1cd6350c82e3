// SPDX-License-Identifier: Apache-2.0
#pragma once
// The selective scan of Mamba-1 (Gu and Dao 2023, arXiv 2312.00752, algorithm 2), per sequence and channel c
// with a state h of N numbers:
//   step[t]  = softplus(delta[t, c] + delta_bias[c])
//   h[t, n]  = exp(step[t] A[c, n]) h[t-1, n] + step[t] x[t, c] B[t, n],   A = -exp(A_log)
//   y[t, c]  = sum over n of h[t, n] C[t, n] + D[c] x[t, c]
// The (T, E, N) states are never stored: forward keeps one state, backward rebuilds them chunk by chunk.

#include "kernels/common/types.hpp"

namespace strata::kernels {

struct SelectiveScanShape {
  Sequences sequences;
  Index channels = 0;  ///< E
  Index state = 0;     ///< N
  /// Positions between two states that backward keeps, at most 256 (48 on a GPU) even if more are asked for;
  /// 0: automatic. Changes results by rounding only.
  Index chunk = 0;
};

/// What the scan reads. Matrices may be ranges of columns of wider ones, except a_log.
template <class T>
struct SelectiveScanInputs {
  Mat<T const> delta;       ///< (rows, E) before bias and softplus
  Vec<T const> delta_bias;  ///< (E)
  Mat<T const> x;           ///< (rows, E)
  Mat<T const> b, c;        ///< (rows, N)
  Mat<T const> a_log;       ///< (E, N)
  Vec<T const> d;           ///< (E)
};

/// Where their gradients go: the first four are overwritten, the parameters' are added to.
template <class T>
struct SelectiveScanGradients {
  Mat<T> delta, x, b, c;
  Vec<T> delta_bias;
  Mat<T> a_log;
  Vec<T> d;
};

/// y (rows, E). state (lanes, E * N), element c * N + n, or empty: goes from the state before the span (zero:
/// the caller clears it) to the state behind it; without it the state starts at zero and is forgotten.
template <class T>
void selective_scan_forward(ExecSpace const& space, SelectiveScanShape const& shape,
                            SelectiveScanInputs<T> const& in, Mat<T> state, Mat<T> y, Vec<T> workspace);
Index selective_scan_forward_workspace(SelectiveScanShape const& shape);

/// initial (count, E * N) or empty (zero): the state before the span. dstate (count, E * N) or empty: goes
/// from the gradient of the state behind the span to that of the state before it.
template <class T>
void selective_scan_backward(ExecSpace const& space, SelectiveScanShape const& shape,
                             SelectiveScanInputs<T> const& in, ConstMat<T> initial, ConstMat<T> dy,
                             SelectiveScanGradients<T> const& out, Mat<T> dstate, Vec<T> workspace);
Index selective_scan_backward_workspace(SelectiveScanShape const& shape);

template <class T>
Cost selective_scan_forward_cost(SelectiveScanShape const& shape);
template <class T>
Cost selective_scan_backward_cost(SelectiveScanShape const& shape);

}  // namespace strata::kernels
