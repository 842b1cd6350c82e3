# SPDX-License-Identifier: Apache-2.0
# CPU cluster: Kokkos with OpenMP. For Kokkos, Kokkos Kernels and Strata alike: cmake -C jobscripts/generic-slurm/cache.cmake ...
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
set(Kokkos_ENABLE_SERIAL ON CACHE BOOL "")
set(Kokkos_ENABLE_OPENMP ON CACHE BOOL "")
set(Kokkos_ARCH_NATIVE ON CACHE BOOL "configure on a node of the kind that runs the jobs")
set(KokkosKernels_ENABLE_TPL_BLAS ON CACHE BOOL "")
set(KokkosKernels_ADD_DEFAULT_ETI OFF CACHE BOOL "")

set(STRATA_ARCH_FLAGS "-march=native" CACHE STRING "")
set(STRATA_ENABLE_TESTS OFF CACHE BOOL "")
set(STRATA_ENABLE_PERF OFF CACHE BOOL "")
