// SPDX-License-Identifier: Apache-2.0
#include "kernels/lanes.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/row_ops.hpp"

namespace strata::kernels {
namespace {

template <class T>
void require_shapes(Sequences shape, ConstMat<T> lanes, ConstMat<T> packed) {
  STRATA_REQUIRE(Index(packed.extent(0)) == shape.count && packed.extent(1) == lanes.extent(1) &&
                     shape.fits(lanes.extent(0)),
                 "packed (" << packed.extent(0) << ", " << packed.extent(1) << "), lanes (" << lanes.extent(0)
                            << ", " << lanes.extent(1) << ")");
}

}  // namespace

template <class T>
void gather_lanes(ExecSpace const& space, Sequences shape, ConstMat<T> lanes, Mat<T> packed) {
  KernelScope const timed("gather_lanes", [&] { return copy_cost<T>(packed.extent(0) * packed.extent(1)); });
  require_shapes<T>(shape, lanes, packed);
  Index const width = packed.extent(1);
  if (width == 0) return;
  for_rows(
      space, "strata::lanes::gather", shape.count, width, KOKKOS_LAMBDA(Lanes const& threads, Index k) {
        T const* const from = &lanes(shape.slot(k), 0);
        T* const to = &packed(k, 0);
        threads.loop(width, [&](Index j) { to[j] = from[j]; });
      });
}

template <class T>
void scatter_lanes(ExecSpace const& space, Sequences shape, ConstMat<T> packed, Mat<T> lanes) {
  KernelScope const timed("scatter_lanes", [&] { return copy_cost<T>(packed.extent(0) * packed.extent(1)); });
  require_shapes<T>(shape, lanes, packed);
  Index const width = packed.extent(1);
  if (width == 0) return;
  for_rows(
      space, "strata::lanes::scatter", shape.count, width, KOKKOS_LAMBDA(Lanes const& threads, Index k) {
        T const* const from = &packed(k, 0);
        T* const to = &lanes(shape.slot(k), 0);
        threads.loop(width, [&](Index j) { to[j] = from[j]; });
      });
}

template <class T>
void clear_lanes(ExecSpace const& space, Sequences shape, Mat<T> lanes) {
  KernelScope const timed("clear_lanes", [&] {
    return Cost{0, double(shape.count * Index(lanes.extent(1))) * sizeof(T), 0};
  });
  STRATA_REQUIRE(shape.fits(lanes.extent(0)), lanes.extent(0) << " lanes for " << shape.count);
  Index const width = lanes.extent(1);
  if (width == 0) return;
  for_rows(
      space, "strata::lanes::clear", shape.count, width, KOKKOS_LAMBDA(Lanes const& threads, Index k) {
        T* const to = &lanes(shape.slot(k), 0);
        threads.loop(width, [&](Index j) { to[j] = T(0); });
      });
}

#define STRATA_LANES(T)                                                             \
  template void gather_lanes<T>(ExecSpace const&, Sequences, ConstMat<T>, Mat<T>);  \
  template void scatter_lanes<T>(ExecSpace const&, Sequences, ConstMat<T>, Mat<T>); \
  template void clear_lanes<T>(ExecSpace const&, Sequences, Mat<T>);
STRATA_INSTANTIATE(STRATA_LANES)

}  // namespace strata::kernels
