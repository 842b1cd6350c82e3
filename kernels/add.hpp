// SPDX-License-Identifier: Apache-2.0
#pragma once
// Elementwise sums of vectors.

#include "kernels/common/types.hpp"

namespace strata::kernels {

/// y (n) += x (n).
template <class T>
void add(ExecSpace const& space, ConstVec<T> x, Vec<T> y);

template <class T>
Cost add_cost(Index n);

}  // namespace strata::kernels
