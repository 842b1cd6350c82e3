# SPDX-License-Identifier: Apache-2.0
# NERSC Perlmutter, GPU nodes: an EPYC 7763 with 64 cores and four A100, one rank per GPU.
# Not run: written from NERSC's public documentation; neither built nor started on the machine.
module load PrgEnv-gnu cudatoolkit craype-accel-nvidia80 cray-hdf5-parallel cmake
# The libraries that no module has (Kokkos, yaml-cpp, CLI11, fmt, spdlog, nlohmann-json, Random123, libpng, libjpeg) in one prefix.
export STRATA_DEPS=${STRATA_DEPS:-$HOME/strata-deps/perlmutter}
export CMAKE_PREFIX_PATH=$STRATA_DEPS${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
export NVCC_WRAPPER_DEFAULT_COMPILER=CC
export STRATA_BUILD=${STRATA_BUILD:-${STRATA_HOME:-$PWD}/build/perlmutter}
export STRATA_LAUNCH=${STRATA_LAUNCH:-srun}
export STRATA_CPUS_PER_CORE=2   # Slurm counts hardware threads there

# Sixteen cores of one NUMA domain per rank. GPUs are numbered against the domains, so a wrapper picks the near one.
export STRATA_SRUN_FLAGS=${STRATA_SRUN_FLAGS:---cpu-bind=cores --gpu-bind=none}
export STRATA_MPIRUN_FLAGS=
export STRATA_RANK_WRAPPER=${STRATA_RANK_WRAPPER:-${STRATA_HOME:-$PWD}/jobscripts/perlmutter/select_gpu.sh}
export OMP_PROC_BIND=close OMP_PLACES=cores
export MPICH_GPU_SUPPORT_ENABLED=1 MPICH_OFI_NIC_POLICY=GPU
