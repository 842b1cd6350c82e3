# Finds Kokkos and Kokkos Kernels and checks the range of versions. Kokkos 3.4 refuses version ranges across majors in
# find_package, hence the check by hand.
find_package(Kokkos REQUIRED CONFIG HINTS ${STRATA_DEPS})  # hints come after Kokkos_ROOT and CMAKE_PREFIX_PATH
if(Kokkos_VERSION VERSION_LESS 3.4 OR Kokkos_VERSION VERSION_GREATER_EQUAL 6)
  message(FATAL_ERROR "Kokkos ${Kokkos_VERSION} in ${Kokkos_DIR} is outside the range 3.4 .. 5.x; point Kokkos_ROOT at another one")
endif()
# Kokkos Kernels belongs to one build of Kokkos: look beside it first.
if(NOT DEFINED KokkosKernels_ROOT AND NOT DEFINED ENV{KokkosKernels_ROOT})
  get_filename_component(KokkosKernels_ROOT ${Kokkos_DIR}/../../.. ABSOLUTE)
endif()
find_package(KokkosKernels REQUIRED CONFIG)
if(NOT TARGET Kokkos::kokkoskernels)
  message(FATAL_ERROR "Kokkos Kernels in ${KokkosKernels_DIR} defines no target Kokkos::kokkoskernels; point KokkosKernels_ROOT at a CMake build of it")
endif()
