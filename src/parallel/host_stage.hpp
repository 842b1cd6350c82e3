// SPDX-License-Identifier: Apache-2.0
#pragma once
// Memory that MPI may read and write when it cannot be handed device memory.

#include <Kokkos_Core.hpp>

#include "kernels/common/types.hpp"

namespace strata::parallel {

/// True when arrays travel through host memory: on a GPU, unless MPI was built to read device memory and
/// Strata was compiled with STRATA_GPU_AWARE_MPI.
#ifdef STRATA_GPU_AWARE_MPI
inline constexpr bool through_host = false;
#else
inline constexpr bool through_host = kernels::on_device;
#endif

/// Page-locked where Kokkos offers it, for faster copies.
#if KOKKOS_VERSION >= 40000
using StageSpace = Kokkos::SharedHostPinnedSpace;
#else
using StageSpace = Kokkos::HostSpace;
#endif

template <class T>
using StageVec = Kokkos::View<T*, Kokkos::LayoutRight, StageSpace>;

}  // namespace strata::parallel
