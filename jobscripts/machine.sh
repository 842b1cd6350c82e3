# SPDX-License-Identifier: Apache-2.0
# Sourced by the batch scripts: the environment of one machine, and how to start the program on the ranks of a job.
#
# in:  STRATA_HOME      the folder of this checkout; default: the folder that sbatch was called in
#      STRATA_MACHINE   a folder under jobscripts/, or the path of one elsewhere; default generic-slurm
# out: STRATA_PROGRAM   the program, $STRATA_BUILD/drivers/strata unless set before
#      launcher         an array; "${launcher[@]}" PROGRAM ARGUMENTS runs it on all ranks, pinned
#      OMP_NUM_THREADS  cores of one rank, as Slurm gave them
# The variables that a machine's environment.sh sets are explained in jobscripts/README.md.

export STRATA_HOME=${STRATA_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}
export STRATA_MACHINE=${STRATA_MACHINE:-generic-slurm}

case $STRATA_MACHINE in
  */*) machine_folder=$STRATA_MACHINE ;;
  *) machine_folder=$STRATA_HOME/jobscripts/$STRATA_MACHINE ;;
esac
if [ ! -f "$machine_folder/environment.sh" ]; then
  echo "strata: $machine_folder/environment.sh does not exist; set STRATA_HOME to the folder of Strata and STRATA_MACHINE to a folder of jobscripts/" >&2
  exit 1
fi
# What a workstation's environment, which sbatch hands on, would undo: mpirun binds nothing where cores may be shared.
unset OMPI_MCA_rmaps_base_oversubscribe
# shellcheck source=jobscripts/generic-slurm/environment.sh
source "$machine_folder/environment.sh"

# A number of threads that came along from the login node says nothing about the job.
export OMP_NUM_THREADS=${STRATA_THREADS:-$((${SLURM_CPUS_PER_TASK:-$STRATA_CPUS_PER_CORE} / STRATA_CPUS_PER_CORE))}
[ "$OMP_NUM_THREADS" -ge 1 ] || export OMP_NUM_THREADS=1
STRATA_PROGRAM=${STRATA_PROGRAM:-$STRATA_BUILD/drivers/strata}

strata_ranks=${SLURM_NTASKS:-$((${SLURM_JOB_NUM_NODES:-1} * ${SLURM_NTASKS_PER_NODE:-1}))}
# The flags are lists of words, and the wrapper is a command with its arguments: split on purpose.
# shellcheck disable=SC2206,SC2034
case $STRATA_LAUNCH in
  srun)
    # From Slurm 22.05 on a step does not inherit --cpus-per-task of its job.
    launcher=(srun --ntasks="$strata_ranks" ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK}
      $STRATA_SRUN_FLAGS $STRATA_RANK_WRAPPER)
    ;;
  mpirun) launcher=(mpirun -n "$strata_ranks" $STRATA_MPIRUN_FLAGS $STRATA_RANK_WRAPPER) ;;
  *)
    echo "strata: STRATA_LAUNCH is '$STRATA_LAUNCH'; it must be srun or mpirun" >&2
    exit 1
    ;;
esac
