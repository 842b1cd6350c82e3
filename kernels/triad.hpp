// SPDX-License-Identifier: Apache-2.0
#pragma once
// The triad of the STREAM benchmark, which finds the bandwidth of the memory.

#include "kernels/common/types.hpp"

namespace strata::kernels {

/// a (n) = b (n) + scale c (n).
template <class T>
void triad(ExecSpace const& space, T scale, ConstVec<T> b, ConstVec<T> c, Vec<T> a);

}  // namespace strata::kernels
