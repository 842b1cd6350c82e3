#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command beside a Slurm of its own on this host: controller, two nodes and munge, with keys, sockets, ports and
# state in a temporary folder that goes away at the end. No cgroups, no accounting, no service of the system.
#
#   unit_tests/slurm/with_slurm.sh [--pin] COMMAND...     for example bash, to submit jobs by hand
#
# Nodes have 32 processors, whatever the host has, and ranks run anywhere. With --pin nodes have those of the host, and
# Slurm binds ranks to them.
# The command finds Slurm by SLURM_CONF. Ends with the command's status. Everything that was started is stopped by its
# process id, also when this script is killed. Needs slurm-wlm and munge (jobscripts/debian/setup.sh installs them) and
# runs as any user: as root jobs are root's, as somebody else the daemons and the jobs are that user's.
set -euo pipefail
fail() { printf 'with_slurm: %s\n' "$*" >&2; exit 1; }
PATH=$PATH:/usr/sbin:/sbin
for program in munged slurmctld slurmd sbatch srun python3; do
  command -v "$program" >/dev/null || fail "$program is missing; jobscripts/debian/setup.sh installs slurm-wlm and munge"
done
processors="CPUs=32" task_plugin=task/none unit=CR_CPU
if [ "${1:-}" = --pin ]; then
  # What slurmd finds: NodeName=... CPUs=... Boards=... SocketsPerBoard=... CoresPerSocket=... ThreadsPerCore=... RealMemory=...
  processors=$(slurmd -C | grep -o 'CPUs=.*ThreadsPerCore=[0-9]*') task_plugin=task/affinity unit=CR_Core
  shift
fi
[ $# -gt 0 ] || fail "usage: with_slurm.sh [--pin] COMMAND..."
unset "${!SLURM_@}" "${!SBATCH_@}" "${!SRUN_@}"

folder=$(mktemp -d)   # a short name, because sockets have short names
chmod 755 "$folder"   # munge wants nobody else to be able to write
main=$BASHPID
declare -a pids=()

# Jobs and their keepers outlive the daemons; all of them have this folder's configuration in their environment.
members() {
  local file
  for file in /proc/[0-9]*/environ; do
    if tr '\0' '\n' <"$file" 2>/dev/null | grep -qx "SLURM_CONF=$folder/slurm.conf"; then
      file=${file#/proc/}
      printf '%s\n' "${file%/environ}"
    fi
  done 2>/dev/null
}
clean_up() {
  [ -d "$folder" ] || return 0
  local pid
  while read -r pid; do pids+=("$pid"); done < <(cat "$folder"/*.pid 2>/dev/null)
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 "${pids[@]}" 2>/dev/null || break
    sleep 0.1
  done
  for pid in "${pids[@]}" $(members); do kill -KILL "$pid" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
# Should this script be killed outright, the guard cleans up in its place.
(
  trap '' HUP INT TERM
  trap - EXIT
  while [ -d "$folder" ] && kill -0 "$main" 2>/dev/null; do sleep 1; done
  clean_up
) </dev/null >/dev/null 2>&1 &
disown $!

read -r -a ports < <(python3 - <<'PYTHON'
import socket
sockets = [socket.socket() for _ in range(3)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))
PYTHON
)
host=$(hostname -s)
user=$(id -un)
mkdir "$folder/state" "$folder/spool" "$folder/tmp" "$folder/tmp/node1" "$folder/tmp/node2"
cat >"$folder/slurm.conf" <<CONF
ClusterName=strata
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until the credential of its last start has expired.
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=$task_plugin
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=pmix
TmpFS=$folder/tmp/%n
SelectType=select/cons_tres
SelectTypeParameters=$unit
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
MinJobAge=3600
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[1]} $processors
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[2]} $processors
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$folder/slurm.conf
# What MPI and PMIx leave in temporary folders is named after job numbers, which begin at 1 in every such Slurm.
export TMPDIR=$folder/tmp

# started NAME CONDITION...: waits until a daemon answers; says what it wrote when it does not.
started() {
  local name=$1
  shift
  for _ in $(seq 150); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  tail -n 20 "$folder/$name.log" "$folder/$name.out" >&2 2>/dev/null || true
  fail "$name does not answer, see its messages above"
}
daemon() {
  local name=$1
  shift
  "$@" >"$folder/$name.out" 2>&1 </dev/null &
  pids+=($!)
}
(umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
daemon munged munged --foreground --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
  --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" --num-threads=2 --force
started munged munge --socket="$folder/munge.socket" --no-input
daemon slurmctld slurmctld -D
started slurmctld scontrol ping
daemon node1 slurmd -D -N node1
daemon node2 slurmd -D -N node2
# shellcheck disable=SC2317 # it is called by its name
nodes_are_idle() { [ "$(sinfo -h -N -o %T | grep -cx idle)" -eq 2 ]; }
started node1 nodes_are_idle

status=0
"$@" <&0 &   # in the background, so that a signal is answered while the command runs
wait $! || status=$?
[ "$status" -eq 0 ] || [ -z "${STRATA_SLURM_LOGS:-}" ] || cp "$folder"/*.log "$folder"/*.out "$STRATA_SLURM_LOGS"
exit "$status"
