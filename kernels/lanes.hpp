// SPDX-License-Identifier: Apache-2.0
#pragma once
// Rows of some lanes of a carry (Sequences::slots) to and from rows side by side.

#include "kernels/common/types.hpp"

namespace strata::kernels {

/// Row k of `packed` (count, D) = row slot(k) of `lanes`.
template <class T>
void gather_lanes(ExecSpace const& space, Sequences shape, ConstMat<T> lanes, Mat<T> packed);

/// Row slot(k) of `lanes` = row k of `packed` (count, D).
template <class T>
void scatter_lanes(ExecSpace const& space, Sequences shape, ConstMat<T> packed, Mat<T> lanes);

/// Row slot(k) of `lanes` = 0.
template <class T>
void clear_lanes(ExecSpace const& space, Sequences shape, Mat<T> lanes);

}  // namespace strata::kernels
