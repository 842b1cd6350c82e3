// SPDX-License-Identifier: Apache-2.0
#pragma once
// Attention of one query per sequence, as generation has it: a pass over the keys and values at the speed of
// memory.

#include "kernels/attention.hpp"

namespace strata::kernels::attention {

/// attention_forward for shape.queries.length == 1 without dropout; arguments are checked there.
template <class T>
void one_query_forward(ExecSpace const& space, AttentionShape const& shape, ConstMat<T> q,
                       KeyValues<T> key_values, Mat<T> o, Mat<T> log_sum, Vec<T> workspace);

}  // namespace strata::kernels::attention
