# SPDX-License-Identifier: Apache-2.0
# NERSC Perlmutter, CPU nodes: two EPYC 7763 with 64 cores each, one rank per NUMA domain.
# Not run: written from NERSC's public documentation; neither built nor started on the machine.
module load cpu PrgEnv-gnu cray-hdf5-parallel cmake
# The libraries that no module has (Kokkos, yaml-cpp, CLI11, fmt, spdlog, nlohmann-json, Random123, libpng, libjpeg) in one prefix.
export STRATA_DEPS=${STRATA_DEPS:-$HOME/strata-deps/perlmutter-cpu}
export CMAKE_PREFIX_PATH=$STRATA_DEPS${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
export STRATA_BUILD=${STRATA_BUILD:-${STRATA_HOME:-$PWD}/build/perlmutter-cpu}
export STRATA_LAUNCH=${STRATA_LAUNCH:-srun}
export STRATA_CPUS_PER_CORE=2   # Slurm counts hardware threads there
export STRATA_RANK_WRAPPER=${STRATA_RANK_WRAPPER:-}

# Eight NUMA domains of sixteen cores: a rank stays in one, a thread on one core.
export STRATA_SRUN_FLAGS=${STRATA_SRUN_FLAGS:---cpu-bind=cores}
export STRATA_MPIRUN_FLAGS=
export OMP_PROC_BIND=close OMP_PLACES=cores
