# SPDX-License-Identifier: Apache-2.0
# Perlmutter's GPU nodes: Kokkos with CUDA for the A100, GPU-aware Cray MPICH. For Kokkos, Kokkos Kernels and Strata alike,
# after `source jobscripts/perlmutter/environment.sh`. Not run: see environment.sh.
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
set(CMAKE_INSTALL_PREFIX $ENV{STRATA_DEPS} CACHE PATH "")
set(CMAKE_C_COMPILER cc CACHE STRING "")
# Kokkos installs its wrapper of nvcc, which hands host code to the wrapper CC. Kokkos itself is built with CC's GNU
# compiler and finds nvcc by its own wrapper in the source folder: add -DCMAKE_CXX_COMPILER=KOKKOS_SOURCE/bin/nvcc_wrapper.
set(CMAKE_CXX_COMPILER $ENV{STRATA_DEPS}/bin/nvcc_wrapper CACHE STRING "")
set(Kokkos_ENABLE_SERIAL ON CACHE BOOL "")
set(Kokkos_ENABLE_OPENMP ON CACHE BOOL "")
set(Kokkos_ENABLE_CUDA ON CACHE BOOL "")
set(Kokkos_ARCH_AMPERE80 ON CACHE BOOL "")
set(Kokkos_ARCH_ZEN3 ON CACHE BOOL "")
set(KokkosKernels_ENABLE_TPL_CUBLAS ON CACHE BOOL "")
set(KokkosKernels_ADD_DEFAULT_ETI OFF CACHE BOOL "")

# Sums over ranks go out of the GPU's memory; CC links the library that lets MPI read it.
set(CMAKE_CXX_FLAGS "-DSTRATA_GPU_AWARE_MPI" CACHE STRING "")
set(STRATA_ARCH_FLAGS "" CACHE STRING "Kokkos sets them")
set(STRATA_ENABLE_TESTS OFF CACHE BOOL "")
set(STRATA_ENABLE_PERF OFF CACHE BOOL "")
