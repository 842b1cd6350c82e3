# SPDX-License-Identifier: Apache-2.0
# A CPU cluster with Slurm and Open MPI. Copy this folder for a machine of your own and load its modules here:
# module load gcc openmpi hdf5
# Run: on the one-host Slurm of unit_tests/slurm, as one node and as two. Not run: on a cluster.
export STRATA_BUILD=${STRATA_BUILD:-${STRATA_HOME:-$PWD}/build/generic-slurm}
export STRATA_LAUNCH=${STRATA_LAUNCH:-srun}
export STRATA_CPUS_PER_CORE=${STRATA_CPUS_PER_CORE:-1}
export STRATA_RANK_WRAPPER=${STRATA_RANK_WRAPPER:-}

# A rank on the cores that Slurm counts to it, ranks side by side, and each thread on a core of its rank.
export STRATA_SRUN_FLAGS=${STRATA_SRUN_FLAGS:---mpi=pmix --cpu-bind=cores --distribution=block:block}
export STRATA_MPIRUN_FLAGS=${STRATA_MPIRUN_FLAGS:---map-by slot:PE=$((${SLURM_CPUS_PER_TASK:-1} / STRATA_CPUS_PER_CORE)) --bind-to core}
export OMP_PROC_BIND=${OMP_PROC_BIND:-close} OMP_PLACES=${OMP_PLACES:-cores}
