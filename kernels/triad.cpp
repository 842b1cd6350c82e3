// SPDX-License-Identifier: Apache-2.0
#include "kernels/triad.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/row_ops.hpp"

namespace strata::kernels {

template <class T>
void triad(ExecSpace const& space, T scale, ConstVec<T> b, ConstVec<T> c, Vec<T> a) {
  STRATA_REQUIRE(b.extent(0) == a.extent(0) && c.extent(0) == a.extent(0),
                 b.extent(0) << " and " << c.extent(0) << " elements for " << a.extent(0));
  T const *const from_b = b.data(), *const from_c = c.data();
  T* const to = a.data();
  for_spans(
      space, "strata::triad::triad", static_cast<Index>(a.extent(0)), KOKKOS_LAMBDA(Index begin, Index end) {
        STRATA_INDEPENDENT
        for (Index i = begin; i < end; ++i) to[i] = from_b[i] + scale * from_c[i];
      });
}

#define STRATA_TRIAD(T) template void triad<T>(ExecSpace const&, T, ConstVec<T>, ConstVec<T>, Vec<T>);
STRATA_INSTANTIATE(STRATA_TRIAD)

}  // namespace strata::kernels
