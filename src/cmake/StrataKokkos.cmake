# Finds Kokkos and Kokkos Kernels and checks the range of versions. Kokkos 3.4 refuses version ranges across majors in
# find_package, hence the check by hand.
find_package(Kokkos REQUIRED CONFIG)
if(Kokkos_VERSION VERSION_LESS 3.4 OR Kokkos_VERSION VERSION_GREATER_EQUAL 6)
  message(FATAL_ERROR "Kokkos ${Kokkos_VERSION} in ${Kokkos_DIR} is outside the range 3.4 .. 5.x; point Kokkos_ROOT at another one")
endif()
find_package(KokkosKernels REQUIRED CONFIG)
if(NOT TARGET Kokkos::kokkoskernels)
  message(FATAL_ERROR "Kokkos Kernels in ${KokkosKernels_DIR} defines no target Kokkos::kokkoskernels; point KokkosKernels_ROOT at a CMake build of it")
endif()
