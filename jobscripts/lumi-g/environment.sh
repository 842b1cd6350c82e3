# SPDX-License-Identifier: Apache-2.0
# LUMI-G at CSC: an EPYC with 64 cores, 56 of them for jobs, and four MI250X that count as eight GPUs, one rank per GPU.
# Not run: written from LUMI's public documentation; Strata has not been compiled with HIP anywhere yet.
module load CrayEnv PrgEnv-amd craype-accel-amd-gfx90a rocm cray-hdf5-parallel buildtools
# The libraries that no module has (Kokkos, yaml-cpp, CLI11, fmt, spdlog, nlohmann-json, Random123, libpng, libjpeg) in one prefix.
export STRATA_DEPS=${STRATA_DEPS:-$HOME/strata-deps/lumi-g}
export CMAKE_PREFIX_PATH=$STRATA_DEPS${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
export STRATA_BUILD=${STRATA_BUILD:-${STRATA_HOME:-$PWD}/build/lumi-g}
export STRATA_LAUNCH=${STRATA_LAUNCH:-srun}
export STRATA_CPUS_PER_CORE=1
export STRATA_THREADS=${STRATA_THREADS:-7}   # the cores in a rank's mask

# Rank i takes GPU i. GPUs 0 and 1 hang on NUMA domain 3, 2 and 3 on domain 1, 4 and 5 on domain 0, 6 and 7 on domain 2,
# hence the order of the masks: seven cores each, without the first of each L3 region. Whole nodes only.
export STRATA_SRUN_FLAGS=${STRATA_SRUN_FLAGS:---cpu-bind=mask_cpu:fe000000000000,fe00000000000000,fe0000,fe000000,fe,fe00,fe00000000,fe0000000000}
export STRATA_MPIRUN_FLAGS=
export STRATA_RANK_WRAPPER=${STRATA_RANK_WRAPPER:-${STRATA_HOME:-$PWD}/jobscripts/lumi-g/select_gpu.sh}
export OMP_PROC_BIND=close OMP_PLACES=cores
export MPICH_GPU_SUPPORT_ENABLED=1
