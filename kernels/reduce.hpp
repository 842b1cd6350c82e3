// SPDX-License-Identifier: Apache-2.0
#pragma once
// Sums in a fixed order: the tree depends on the number of elements only, never on threads, so the same input
// gives the same bits on any number of threads.

#include "kernels/common/types.hpp"

namespace strata::kernels {

/// sums (columns) += the sum of each column of m. workspace: column_sums_workspace(rows, columns) elements.
template <class T>
void column_sums(ExecSpace const& space, ConstMat<T> m, Vec<T> sums, Vec<T> workspace);
Index column_sums_workspace(Index rows, Index columns);

/// Elements whose squares block_squares adds up to one number.
inline constexpr Index squares_per_block = 8192;

/// result(0) = sum of squares of v in double: block_squares, then sum. workspace: squared_norm_workspace(n)
/// doubles.
template <class T>
void squared_norm(ExecSpace const& space, ConstVec<T> v, Vec<double> result, Vec<double> workspace);
Index squared_norm_workspace(Index n);
/// blocks(b) = sum of squares of the elements of v from b * squares_per_block on; squared_norm_workspace(n)
/// of them.
template <class T>
void block_squares(ExecSpace const& space, ConstVec<T> v, Vec<double> blocks);
/// result(0) = sum of v.
void sum(ExecSpace const& space, Vec<double const> v, Vec<double> result);

/// totals(0) += sum of the losses that are not negative (a NaN is not), totals(1) += their number; both in
/// double. Rows that predict nothing carry a loss of -1 (cross_entropy.hpp).
template <class T>
void add_losses(ExecSpace const& space, ConstVec<T> losses, Vec<double> totals);

template <class T>
Cost column_sums_cost(Index rows, Index columns);
template <class T>
Cost squared_norm_cost(Index n);

}  // namespace strata::kernels
