# SPDX-License-Identifier: Apache-2.0
# Debian 12: Kokkos with OpenMP. jobscripts/debian/setup.sh builds all of it without this file; it is here for builds by
# hand: cmake -C jobscripts/debian/cache.cmake -S . -B build/release -G Ninja
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
set(Kokkos_ENABLE_SERIAL ON CACHE BOOL "")
set(Kokkos_ENABLE_OPENMP ON CACHE BOOL "")
set(KokkosKernels_ENABLE_TPL_BLAS ON CACHE BOOL "")
set(KokkosKernels_ADD_DEFAULT_ETI OFF CACHE BOOL "")

set(STRATA_ARCH_FLAGS "-march=native" CACHE STRING "")
