# SPDX-License-Identifier: Apache-2.0
# LUMI-G: Kokkos with HIP for the MI250X, GPU-aware Cray MPICH. For Kokkos, Kokkos Kernels and Strata alike, after
# `source jobscripts/lumi-g/environment.sh`. Not run: see environment.sh.
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
set(CMAKE_INSTALL_PREFIX $ENV{STRATA_DEPS} CACHE PATH "")
set(CMAKE_C_COMPILER cc CACHE STRING "")
set(CMAKE_CXX_COMPILER hipcc CACHE STRING "")
set(Kokkos_ENABLE_SERIAL ON CACHE BOOL "")
set(Kokkos_ENABLE_OPENMP ON CACHE BOOL "")
set(Kokkos_ENABLE_HIP ON CACHE BOOL "")
set(Kokkos_ARCH_AMD_GFX90A ON CACHE BOOL "named VEGA90A before Kokkos 4.0")
set(Kokkos_ARCH_ZEN3 ON CACHE BOOL "")
set(KokkosKernels_ENABLE_TPL_ROCBLAS ON CACHE BOOL "")
set(KokkosKernels_ADD_DEFAULT_ETI OFF CACHE BOOL "")

# hipcc knows nothing of Cray's wrappers: MPI, and the library that lets it read the GPU's memory, by name.
set(CMAKE_CXX_FLAGS "-DSTRATA_GPU_AWARE_MPI -I$ENV{MPICH_DIR}/include" CACHE STRING "")
set(CMAKE_EXE_LINKER_FLAGS
    "-L$ENV{MPICH_DIR}/lib -lmpi $ENV{CRAY_XPMEM_POST_LINK_OPTS} -lxpmem $ENV{PE_MPICH_GTL_DIR_amd_gfx90a} $ENV{PE_MPICH_GTL_LIBS_amd_gfx90a}"
    CACHE STRING "")
set(STRATA_ARCH_FLAGS "" CACHE STRING "Kokkos sets them")
set(STRATA_ENABLE_TESTS OFF CACHE BOOL "")
set(STRATA_ENABLE_PERF OFF CACHE BOOL "")
