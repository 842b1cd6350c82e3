// SPDX-License-Identifier: Apache-2.0
#include "kernels/byte_losses.hpp"

namespace strata::kernels {

template <class T>
void scatter_byte_losses(ExecSpace const& space, Targets const& targets, StageRows const& rows,
                         ConstVec<T> losses, Vec<T> byte_losses) {
  Kokkos::parallel_for(
      "strata::byte_losses::scatter", Kokkos::RangePolicy<ExecSpace>(space, 0, rows.shape.rows()),
      KOKKOS_LAMBDA(Index r) {
        Index const byte = targets.flat(rows, r);
        if (byte >= 0) byte_losses(byte) = losses(r);
      });
}

#define STRATA_SCATTER(T)                                                                               \
  template void scatter_byte_losses<T>(ExecSpace const&, Targets const&, StageRows const&, ConstVec<T>, \
                                       Vec<T>);
STRATA_INSTANTIATE(STRATA_SCATTER)

}  // namespace strata::kernels
