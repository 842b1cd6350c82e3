# SPDX-License-Identifier: Apache-2.0
# Perlmutter's CPU nodes: Kokkos with OpenMP; the wrapper CC brings Cray MPICH and the BLAS of LibSci. For Kokkos, Kokkos
# Kernels and Strata alike, after `source jobscripts/perlmutter-cpu/environment.sh`. Not run: see environment.sh.
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
set(CMAKE_INSTALL_PREFIX $ENV{STRATA_DEPS} CACHE PATH "")
set(CMAKE_C_COMPILER cc CACHE STRING "")
set(CMAKE_CXX_COMPILER CC CACHE STRING "")
set(Kokkos_ENABLE_SERIAL ON CACHE BOOL "")
set(Kokkos_ENABLE_OPENMP ON CACHE BOOL "")
set(Kokkos_ARCH_ZEN3 ON CACHE BOOL "")
set(KokkosKernels_ENABLE_TPL_BLAS ON CACHE BOOL "")
set(KokkosKernels_ADD_DEFAULT_ETI OFF CACHE BOOL "")

set(STRATA_ARCH_FLAGS "" CACHE STRING "Kokkos sets them")
set(STRATA_ENABLE_TESTS OFF CACHE BOOL "")
set(STRATA_ENABLE_PERF OFF CACHE BOOL "")
