# SPDX-License-Identifier: Apache-2.0
# OLCF Frontier: an EPYC with 64 cores, 56 of them for jobs, and four MI250X that count as eight GPUs, one rank per GPU.
# Not run: written from OLCF's public documentation; Strata has not been compiled with HIP anywhere yet.
module load PrgEnv-amd rocm craype-accel-amd-gfx90a cray-hdf5-parallel cmake
# The libraries that no module has (Kokkos, yaml-cpp, CLI11, fmt, spdlog, nlohmann-json, Random123, libpng, libjpeg) in one prefix.
export STRATA_DEPS=${STRATA_DEPS:-$HOME/strata-deps/frontier}
export CMAKE_PREFIX_PATH=$STRATA_DEPS${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
export STRATA_BUILD=${STRATA_BUILD:-${STRATA_HOME:-$PWD}/build/frontier}
export STRATA_LAUNCH=${STRATA_LAUNCH:-srun}
export STRATA_CPUS_PER_CORE=1   # one hardware thread of a core, unless a job asks for two
export STRATA_RANK_WRAPPER=${STRATA_RANK_WRAPPER:-}

# Seven cores of one L3 region per rank (the eighth is the system's), and the GPU that is wired to this region.
export STRATA_SRUN_FLAGS=${STRATA_SRUN_FLAGS:---gpus-per-task=1 --gpu-bind=closest --cpu-bind=threads}
export STRATA_MPIRUN_FLAGS=
export OMP_PROC_BIND=close OMP_PLACES=cores
export MPICH_GPU_SUPPORT_ENABLED=1
