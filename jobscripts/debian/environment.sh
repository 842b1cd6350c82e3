# Environment of a Debian workstation; source it before running strata by hand.
# Threads: one OpenMP team per rank, shared by Kokkos and OpenBLAS. Idle threads sleep rather than spin, so that
# ranks, readers and other programs on the same cores do not slow each other down.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
export OMP_PROC_BIND=${OMP_PROC_BIND:-false}
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
# Open MPI in containers and on small machines: started as root, more ranks than cores.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
