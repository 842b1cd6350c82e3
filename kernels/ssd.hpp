// SPDX-License-Identifier: Apache-2.0
#pragma once
// The state-space dual form of Mamba-2 (Dao and Gu 2024, arXiv 2405.21060, section 6), per sequence and head
// with p features and a state S of N x p numbers:
//   step[t] = softplus(dt[t] + dt_bias),   a = -exp(A_log)
//   S[t]    = exp(step[t] a) S[t-1] + step[t] B[t] x[t]^T
//   y[t]    = S[t]^T C[t] + D x[t]
// computed in chunks as products of matrices; B and C are shared by all heads. States are formed at chunk
// borders only, in the workspace, and again in backward. doc/kernels/ssd.md derives the formulas.

#include "kernels/common/types.hpp"

namespace strata::kernels {

struct SsdShape {
  Sequences sequences;
  Index heads = 0;
  Index head_width = 0;  ///< p; the layer has E = heads * p channels
  Index state = 0;       ///< N
  /// Positions per chunk; 0: automatic. Changes results by rounding only.
  Index chunk = 0;

  KOKKOS_INLINE_FUNCTION constexpr Index channels() const { return heads * head_width; }
};

/// What the layer reads. Matrices may be ranges of columns of wider ones.
template <class T>
struct SsdInputs {
  Mat<T const> x;        ///< (rows, E), head h has columns h * p ..
  Mat<T const> b, c;     ///< (rows, N)
  Mat<T const> dt;       ///< (rows, heads) before bias and softplus
  Vec<T const> dt_bias;  ///< (heads)
  Vec<T const> a_log;    ///< (heads)
  Vec<T const> d;        ///< (heads)
};

/// Where their gradients go: the first four are overwritten, the parameters' are added to.
template <class T>
struct SsdGradients {
  Mat<T> x, b, c, dt;
  Vec<T> dt_bias, a_log, d;
};

/// y (rows, E). state (lanes, heads * N * p), element (h * N + n) * p + c, or empty: goes from the state
/// before the span (the caller clears it at a sequence's start) to the state behind it; without it the state
/// starts at zero and is forgotten. A single position takes the recurrent step, at O(heads * N * p).
template <class T>
void ssd_forward(ExecSpace const& space, SsdShape const& shape, SsdInputs<T> const& in, Mat<T> state,
                 Mat<T> y, Vec<T> workspace);
/// keeps_state: with a state to start from and to return.
template <class T>
Index ssd_forward_workspace(SsdShape const& shape, bool keeps_state);

/// initial (count, heads * N * p) or empty (zero): the state before the span. dstate (same) or empty: goes
/// from the gradient of the state behind the span to that of the state before it.
template <class T>
void ssd_backward(ExecSpace const& space, SsdShape const& shape, SsdInputs<T> const& in, ConstMat<T> initial,
                  ConstMat<T> dy, SsdGradients<T> const& out, Mat<T> dstate, Vec<T> workspace);
template <class T>
Index ssd_backward_workspace(SsdShape const& shape, bool keeps_state);

/// Useful work: the causal half of the pairs within a chunk, and of the recurrent part what the chunks need.
template <class T>
Cost ssd_forward_cost(SsdShape const& shape);
template <class T>
Cost ssd_backward_cost(SsdShape const& shape);

}  // namespace strata::kernels
