# Everything Strata links to, each with the reason.
include(StrataKokkos)                       # parallel kernels, and their BLAS
find_package(MPI REQUIRED COMPONENTS C)     # ranks
set(HDF5_PREFER_PARALLEL ON)
find_package(HDF5 REQUIRED COMPONENTS C)    # datasets and checkpoints
if(NOT HDF5_IS_PARALLEL)
  message(FATAL_ERROR "HDF5 ${HDF5_VERSION} was built without MPI; install a parallel build (Debian: libhdf5-openmpi-dev)")
endif()
find_package(Threads REQUIRED)
find_package(yaml-cpp REQUIRED)             # decks
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)               # log lines
find_package(nlohmann_json REQUIRED)        # --json, metrics.jsonl
find_package(CLI11 REQUIRED)                # command lines
find_package(PNG REQUIRED)                  # images for `strata pack --images`
find_package(JPEG REQUIRED)
find_path(RANDOM123_INCLUDE_DIR Random123/philox.h REQUIRED)   # counter-based random numbers
add_library(strata_random123 INTERFACE)
target_include_directories(strata_random123 SYSTEM INTERFACE ${RANDOM123_INCLUDE_DIR})
if(TARGET yaml-cpp::yaml-cpp)
  set(STRATA_YAML yaml-cpp::yaml-cpp)
else()
  set(STRATA_YAML yaml-cpp)
endif()
add_library(strata_hdf5 INTERFACE)
target_include_directories(strata_hdf5 SYSTEM INTERFACE ${HDF5_INCLUDE_DIRS})
target_link_libraries(strata_hdf5 INTERFACE ${HDF5_LIBRARIES} MPI::MPI_C)
target_compile_definitions(strata_hdf5 INTERFACE OMPI_SKIP_MPICXX)
