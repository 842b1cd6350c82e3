# How Strata's own targets are declared. A module is a folder: every *.cpp in it is compiled into strata_<name>, and
# what it links to is exactly what it may include (doc/architecture.md has the picture, a test checks the includes).

add_library(strata_flags INTERFACE)
target_compile_features(strata_flags INTERFACE cxx_std_20)
target_compile_options(strata_flags INTERFACE -Wall -Wextra)
if(Kokkos_ENABLE_CUDA)
  # fmt 9 gives up constexpr under nvcc, and then cannot compile its own headers.
  target_compile_definitions(strata_flags INTERFACE FMT_USE_CONSTEXPR=1)
else()
  # nvcc's host pass and Kokkos's own headers trip over these; g++ and clang do not.
  target_compile_options(strata_flags INTERFACE -Wpedantic -Wshadow)
  separate_arguments(arch_flags UNIX_COMMAND "${STRATA_ARCH_FLAGS}")
  # errno and floating-point traps are never read, and giving them up lets loops with sqrt or a select vectorise.
  target_compile_options(strata_flags INTERFACE ${arch_flags} -fno-math-errno -fno-trapping-math)
endif()
if(STRATA_PRECOMPILE_HEADERS AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ spends a tenth of its time looking for memory to free, of which a precompiled header leaves little.
  target_compile_options(strata_flags INTERFACE --param=ggc-min-expand=200 --param=ggc-min-heapsize=2000000)
endif()
add_library(strata_sanitizers INTERFACE)
if(STRATA_ENABLE_SANITIZERS)
  target_compile_options(strata_sanitizers INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  target_link_options(strata_flags INTERFACE -fsanitize=address,undefined)
endif()

# strata_precompile(<target> <header>... | LIKE <other target>): with Kokkos, which every source includes. LIKE takes the
# other target's, compiled with the same flags. A source still has to include what it uses: other builds, and the linter,
# do without.
function(strata_precompile target)
  cmake_parse_arguments(ARG "" "LIKE" "" ${ARGN})
  if(NOT STRATA_PRECOMPILE_HEADERS OR Kokkos_ENABLE_CUDA)
    return()
  endif()
  if(ARG_LIKE)
    target_precompile_headers(${target} REUSE_FROM ${ARG_LIKE})
  else()
    target_precompile_headers(${target} PRIVATE <Kokkos_Core.hpp> ${ARG_UNPARSED_ARGUMENTS})
  endif()
endfunction()

# strata_add_module(<name> [LINK target...])
function(strata_add_module name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  add_library(strata_${name} STATIC ${sources})
  add_library(strata::${name} ALIAS strata_${name})
  target_include_directories(strata_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
  target_link_libraries(strata_${name} PUBLIC ${ARG_LINK} PRIVATE strata_flags)
  if(NOT name IN_LIST STRATA_UNSANITIZED_MODULES)
    target_link_libraries(strata_${name} PRIVATE strata_sanitizers)
  endif()
  set_target_properties(strata_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  # The precompiled header of another module is of use only with the same flags.
  if(name STREQUAL "kernels" OR name STREQUAL "core" OR name STREQUAL "train" OR name IN_LIST STRATA_UNSANITIZED_MODULES)
    strata_precompile(strata_${name})
  else()
    strata_precompile(strata_${name} LIKE strata_core)
  endif()
endfunction()

# What every test finds in its environment, whoever runs it and however many ranks share the cores. Open MPI is told to
# look for no InfiniBand, which takes it 0.2 s at every start, and more when two programs start together.
set(STRATA_TEST_ENVIRONMENT OMP_PROC_BIND=false OMP_WAIT_POLICY=passive ASAN_OPTIONS=detect_leaks=0
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_pml=ob1)
# Without mpiexec it need not start a daemon either. Folders of such programs would all have one name.
set(STRATA_ONE_RANK_ENVIRONMENT OMPI_MCA_ess_singleton_isolated=1 OMPI_MCA_orte_create_session_dirs=0)
