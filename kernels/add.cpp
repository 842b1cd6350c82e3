// SPDX-License-Identifier: Apache-2.0
#include "kernels/add.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/row_ops.hpp"

namespace strata::kernels {

template <class T>
void add(ExecSpace const& space, ConstVec<T> x, Vec<T> y) {
  KernelScope const timed("add", [&] { return add_cost<T>(static_cast<Index>(y.extent(0))); });
  STRATA_REQUIRE(x.extent(0) == y.extent(0), x.extent(0) << " elements added to " << y.extent(0));
  T const* const from = x.data();
  T* const to = y.data();
  for_spans(
      space, "strata::add::add", static_cast<Index>(y.extent(0)), KOKKOS_LAMBDA(Index begin, Index end) {
        STRATA_INDEPENDENT
        for (Index i = begin; i < end; ++i) to[i] += from[i];
      });
}

template <class T>
Cost add_cost(Index n) {
  double const count = static_cast<double>(n);
  return {2 * count * sizeof(T), count * sizeof(T), count};
}

#define STRATA_ADD(T)                                          \
  template void add<T>(ExecSpace const&, ConstVec<T>, Vec<T>); \
  template Cost add_cost<T>(Index);
STRATA_INSTANTIATE(STRATA_ADD)

}  // namespace strata::kernels
