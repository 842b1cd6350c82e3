#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""train.sbatch with jobscripts/generic-slurm on a Slurm that binds: every rank has cores of its own, as many as threads.

usage: with_slurm.sh --pin test_pinning.py SOURCE_FOLDER
"""
import os
import subprocess
import sys
import tempfile

# In the program's place: notes the cores and threads of its rank, and ends as a run that is done.
STUB = """#!/bin/sh
grep Cpus_allowed_list /proc/self/status | cut -f 2 | tr '\\n' ' ' >seen.$$
echo "$OMP_NUM_THREADS $OMP_PROC_BIND $OMP_PLACES" >>seen.$$
touch runs/deck/DONE
"""
source = os.path.abspath(sys.argv[1])
wrong = []


def cores(text):
    """{0, 2, 3} of 0,2-3"""
    spans = [part.split("-") for part in text.split(",")]
    return {core for span in spans for core in range(int(span[0]), int(span[-1]) + 1)}


def check_job(launcher, ranks, threads):
    with tempfile.TemporaryDirectory() as place:
        for name, text in (("stub", STUB), ("deck.yaml", "")):
            with open(os.path.join(place, name), "w") as out:
                out.write(text)
        os.chmod(os.path.join(place, "stub"), 0o755)
        environment = {**os.environ, "STRATA_HOME": source, "STRATA_MACHINE": "generic-slurm", "STRATA_LAUNCH": launcher,
                       "STRATA_PROGRAM": os.path.join(place, "stub"), "OMP_NUM_THREADS": "7", "STRATA_CPUS_PER_CORE": str(per_core),
                       "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        for variable in ("OMP_PROC_BIND", "OMP_PLACES"):   # ctest sets them
            environment.pop(variable, None)
        made = subprocess.run(["sbatch", "--wait", f"--ntasks={ranks}", f"--cpus-per-task={threads * per_core}", "--output=log",
                               os.path.join(source, "jobscripts", "train.sbatch"), "deck.yaml"], cwd=place,
                              env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        case = f"{launcher}, {ranks} ranks x {threads} threads"
        log = os.path.join(place, "log")
        if made.returncode != 0:
            wrong.append(f"{case}: {made.stdout}{open(log).read() if os.path.exists(log) else ''}")
            return
        seen = [open(os.path.join(place, name)).read().split() for name in os.listdir(place) if name.startswith("seen.")]
        print(f"{case}: {seen}")
        if len(seen) != ranks:
            wrong.append(f"{case}: {len(seen)} ranks were started")
        if any(len(cores(line[0])) != threads * per_core or line[1:] != [str(threads), "close", "cores"] for line in seen):
            wrong.append(f"{case}: cores, threads and binding are {seen}")
        if len(set().union(*(cores(line[0]) for line in seen))) != ranks * threads * per_core:
            wrong.append(f"{case}: ranks share cores: {seen}")


hardware = dict(pair.split("=") for pair in subprocess.check_output(["slurmd", "-C"], text=True).split())
per_core = int(hardware["ThreadsPerCore"])
available = min(8, int(hardware["CPUs"]) // per_core)   # cores used
for launcher in ("srun", "mpirun"):
    check_job(launcher, 1, available)
    check_job(launcher, available, 1)
sys.exit("test_pinning: " + "\n".join(wrong) if wrong else 0)
