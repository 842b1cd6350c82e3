// SPDX-License-Identifier: Apache-2.0
#pragma once
// A stage's input rows from the embedded sub-patches, the start vector, the stage's positions and the
// parent's context:
//   x[k, t] = (t == 0 ? start : position_(t-1)(embedded sub-patch t-1)) + context[k, t - lag]
// lag 0 (head `complete`): row t reads slot t. lag 1 (head `reference`): row 0 reads none, row t reads slot t
// - 1. position_j adds row j of a table, or rotates interleaved feature pairs (2i, 2i+1) by the angle j *
// 10000^(-2i/D).

#include "kernels/common/types.hpp"
#include "kernels/embedding.hpp"

namespace strata::kernels {

/// x (rows.shape.rows(), D); embedded (rows.embedded_rows(), D); start (D).
/// positions (P, D): a learnt table, or empty; row j belongs to sub-patch j of a sequence. rotation
/// (rows.embedded_length(), D): a rotary_table (cosines | sines) over the sub-patches that a sequence's rows
/// read, from sub-patch rows.first_patch() on, or empty; where shape.starts differ, a row per sequence.
/// context (lanes * rows.patches, D) with slots 0 .. patches-1 of each lane, or empty (outermost stage).
template <class T>
void stage_input_forward(ExecSpace const& space, StageRows const& rows, ConstMat<T> embedded,
                         ConstVec<T> start, ConstMat<T> positions, ConstMat<T> rotation, ConstMat<T> context,
                         Index lag, Mat<T> x);

/// dembedded (embedded_rows, D) = ; dstart (D) += ; dpositions (P, D) += or empty; dcontext (count * patches,
/// D) = or empty (slots that no row read become 0). workspace: stage_input_workspace(rows, D) elements.
template <class T>
void stage_input_backward(ExecSpace const& space, StageRows const& rows, ConstMat<T> dx, ConstMat<T> rotation,
                          Index lag, Mat<T> dembedded, Vec<T> dstart, Mat<T> dpositions, Mat<T> dcontext,
                          Vec<T> workspace);
Index stage_input_workspace(StageRows const& rows, Index width);

template <class T>
Cost stage_input_cost(StageRows const& rows, Index width);

}  // namespace strata::kernels
