# Environment of a Debian workstation; source it before running strata by hand.
# Run: everything, by the set-up, quick-start and test scripts beside it and by unit_tests/slurm.
# Threads: one OpenMP team per rank, shared by Kokkos and OpenBLAS. Idle threads sleep rather than spin, so that
# ranks, readers and other programs on the same cores do not slow each other down.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
export OMP_PROC_BIND=${OMP_PROC_BIND:-false}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
# Open MPI in containers and on small machines: started as root, more ranks than cores.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl_vader_single_copy_mechanism=none

# For jobscripts/*.sbatch on a workstation that runs Slurm; the variables are explained in jobscripts/README.md. Not exported:
# a job for another machine, submitted from a shell that has sourced this, shall take that one's.
STRATA_BUILD=${STRATA_BUILD:-${STRATA_HOME:-$PWD}/build/release}
STRATA_LAUNCH=${STRATA_LAUNCH:-srun}
STRATA_CPUS_PER_CORE=${STRATA_CPUS_PER_CORE:-1}
STRATA_RANK_WRAPPER=${STRATA_RANK_WRAPPER:-}
STRATA_SRUN_FLAGS=${STRATA_SRUN_FLAGS:---mpi=pmix}
STRATA_MPIRUN_FLAGS=${STRATA_MPIRUN_FLAGS:---bind-to none}
