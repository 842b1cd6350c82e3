#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""perf/scaling on a real Slurm: a sweep over one and two ranks is submitted, a job that is warned of its time limit requeues
itself and goes on with the cases that are left, and a case that fails is a row with its reason.

usage: with_slurm.sh test_scaling.py STRATA SOURCE_FOLDER
"""
import json
import os
import subprocess
import sys
import tempfile
import time

strata, source = (os.path.abspath(path) for path in sys.argv[1:3])
begin = time.time()
LIMIT = 400   # seconds; far beyond what is needed
# Waits in the second case of two ranks, once, so that the job can be warned there.
SLOW = """#!/bin/sh
case "$*" in
  *seed=7*) [ "${{OMPI_COMM_WORLD_SIZE:-${{SLURM_NTASKS:-1}}}}" = 1 ] || [ -e {mark} ] || {{ touch {mark}; sleep 60; }} ;;
esac
exec {strata} "$@"
"""


def check(condition, message):
    if not condition:
        sys.exit(f"test_scaling: {message}")


def output_of(*command, cwd=None, **variables):
    result = subprocess.run(command, cwd=cwd, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, check=False)
    check(result.returncode == 0, f"{' '.join(command)}: {result.stdout}")
    return result.stdout


def state(job):
    text = output_of("scontrol", "show", "job", "-o", job)
    facts = dict(pair.split("=", 1) for pair in text.split() if "=" in pair)
    return facts["JobState"], int(facts["Restarts"])


def logs(folder):
    texts = []
    for file in sorted(os.listdir(folder)):
        if file.endswith(".log"):
            with open(os.path.join(folder, file), encoding="utf-8") as lines:
                texts.append(lines.read())
    return "\n".join(texts)


with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as top:
    text, mark, slow = (os.path.join(top, name) for name in ("text", "mark", "slow"))
    with open(text, "w", encoding="utf-8") as file:
        file.write("slate gneiss marl tuff loess " * 400)
    with open(slow, "w", encoding="utf-8") as file:
        file.write(SLOW.format(mark=mark, strata=strata))
    os.chmod(slow, 0o755)
    output_of(strata, "pack", "--output", os.path.join(top, "data.h5"), "--train", text)
    scaling = [sys.executable, os.path.join(source, "perf", "scaling")]
    results = os.path.join(top, "results")
    sweep = ["submit", os.path.join(source, "inputs", "memorise.yaml"), "--dataset", "data.h5", "--results", results, "--machine",
             "debian", "--strata", slow, "--steps", "3", "--sweeps", "weak"]
    # Without jobs: a plan of two cases for each number of ranks, and one more on one rank that must fail.
    plan = [*scaling, *sweep, "--ranks", "1,2", "--dry-run"]
    output_of(*plan, cwd=top)
    output_of(*plan, "--set", "train.seed=7", cwd=top)
    output_of(*scaling, *sweep, "--ranks", "1", "--set", "train.memory=1M", "--dry-run", cwd=top)
    said = output_of(*scaling, *sweep, "--ranks", "1,2", "--", "--time=30", cwd=top)
    with open(os.path.join(results, "jobs.jsonl"), encoding="utf-8") as file:
        jobs = {job["ranks"]: job["job"] for job in map(json.loads, file)}
    check(sorted(jobs) == [1, 2], f"not one job for each number of ranks: {said}")
    while not os.path.exists(mark):
        check(time.time() - begin < LIMIT, f"the second case does not begin: {logs(top)}")
        time.sleep(0.05)
    time.sleep(0.5)
    output_of("scancel", "--batch", "--signal=USR1", jobs[2])
    for job in jobs.values():
        while state(job)[0] not in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"):
            check(time.time() - begin < LIMIT, f"job {job} does not end: {state(job)}: {logs(top)}")
            time.sleep(0.2)
        check(state(job)[0] == "COMPLETED", f"job {job} is {state(job)}: {logs(top)}")
    check(state(jobs[2])[1] == 1, f"the warned job was not requeued once: {logs(top)}")
    text = output_of(*scaling, "table", results)
    with open(os.path.join(results, "table.jsonl"), encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    check([(row["ranks"], row["status"]) for row in rows] ==
          [(1, "done"), (2, "done"), (1, "done"), (2, "done"), (1, "failed")], f"rows: {text}\n{logs(top)}")
    check("memory" in rows[4]["reason"], f"reason: {rows[4]['reason']}")
    for row in rows[:4]:
        check(row["provenance"]["ranks"] == row["ranks"] and row["job"] == jobs[row["ranks"]], f"origin of {row}")
        check(row["launcher"][0] == "srun", f"launched by {row['launcher']}")
    print(f"{time.time() - begin:.1f} s; {text}")
