// SPDX-License-Identifier: Apache-2.0
#pragma once
// Products with few rows on a host, as linear.hpp promises them: each row of y by itself.

#include "kernels/common/types.hpp"

namespace strata::kernels::linear {

/// y = x W^T, plus bias (N) if that is not empty; or y += x W^T. At most `independent_rows` rows, K at
/// least 1.
template <class T>
void multiply_few_rows(ExecSpace const& space, ConstMat<T> x, ConstMat<T> weight, ConstVec<T> bias, Mat<T> y,
                       bool accumulate);

}  // namespace strata::kernels::linear
