#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every folder of jobscripts/ has the same files with the same variables, and makes the launch command its machine needs.
Modules are not loaded and nothing is started: this checks the scripts, not the machines.

usage: test_machines.py SOURCE_FOLDER
"""
import os
import re
import shlex
import subprocess
import sys

VARIABLES = ("STRATA_BUILD", "STRATA_LAUNCH", "STRATA_CPUS_PER_CORE", "STRATA_RANK_WRAPPER", "STRATA_SRUN_FLAGS",
             "STRATA_MPIRUN_FLAGS", "OMP_PROC_BIND")
# Ranks and threads that a node gets with the folder's sbatch.options, GPUs, and what binds them.
NODES = {
    "debian": (1, 1, 0, ["--mpi=pmix"]),
    "generic-slurm": (1, 4, 0, ["--cpu-bind=cores", "--mpi=pmix"]),
    "perlmutter": (4, 16, 4, ["--cpu-bind=cores", "perlmutter/select_gpu.sh"]),
    "perlmutter-cpu": (8, 16, 0, ["--cpu-bind=cores"]),
    "frontier": (8, 7, 8, ["--gpus-per-task=1", "--gpu-bind=closest"]),
    "lumi-g": (8, 7, 8, ["--cpu-bind=mask_cpu:", "lumi-g/select_gpu.sh"]),
}
source = os.path.abspath(sys.argv[1])
jobscripts = os.path.join(source, "jobscripts")
wrong = []


def check(condition, message):
    if not condition:
        wrong.append(message)


def in_job(machine, options, script):
    """A shell with what Slurm and the machine's environment set; `module` does nothing."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/home/user", "STRATA_HOME": source, "STRATA_MACHINE": machine,
                   "SLURM_JOB_NUM_NODES": "1"}
    for option, variable in (("ntasks-per-node", "SLURM_NTASKS_PER_NODE"), ("cpus-per-task", "SLURM_CPUS_PER_TASK")):
        if option in options:
            environment[variable] = options[option]
    return subprocess.run(["bash", "-uc", f"module() {{ :; }}; source {shlex.quote(jobscripts)}/machine.sh; {script}"],
                          env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


folders = sorted(name for name in os.listdir(jobscripts) if os.path.isdir(os.path.join(jobscripts, name)))
check(folders == sorted(NODES), f"the folders are {folders}, this test knows {sorted(NODES)}")
with open(os.path.join(jobscripts, "README.md")) as file:
    readme = file.read()
for machine in folders:
    place = os.path.join(jobscripts, machine)
    ranks, threads, gpus, binding = NODES[machine]
    with open(os.path.join(place, "environment.sh")) as file:
        environment = file.read()
    check(re.search(r"^# (Not run|Run):", environment, re.M), f"{machine}/environment.sh does not say what was run")
    for variable in VARIABLES:
        check(f"{variable}=" in environment, f"{machine}/environment.sh does not set {variable}")
    check(f"| `{machine}` |" in readme, f"jobscripts/README.md does not list {machine}")

    with open(os.path.join(place, "sbatch.options")) as file:
        options = dict(word[2:].split("=", 1) for word in file.read().split())
    check(int(options["ntasks-per-node"]) == ranks, f"{machine}: {options['ntasks-per-node']} ranks per node")
    check(int(options.get("gpus-per-node", 0)) == gpus, f"{machine}: {options.get('gpus-per-node')} GPUs per node")
    made = in_job(machine, options, 'echo "$OMP_NUM_THREADS"; echo "$STRATA_PROGRAM"; printf "%s\\n" "${launcher[@]}"')
    check(made.returncode == 0, f"{machine}: {made.stdout}")
    lines = made.stdout.splitlines()
    check(lines[0] == str(threads), f"{machine}: {lines[0]} threads, not {threads}")
    check(lines[1].endswith("/drivers/strata"), f"{machine}: the program is {lines[1]}")
    check(lines[2:4] == ["srun", f"--ntasks={ranks}"], f"{machine} starts {lines[2:]}")
    for word in binding:
        check(any(word in line for line in lines[4:]), f"{machine}: {word} is missing in {lines[4:]}")

    cache = subprocess.run(["cmake", "-P", os.path.join(place, "cache.cmake")], stderr=subprocess.PIPE, text=True)
    check(cache.returncode == 0, f"{machine}/cache.cmake: {cache.stderr}")
    with open(os.path.join(place, "cache.cmake")) as file:
        text = file.read()
    backend = re.findall(r"Kokkos_ENABLE_(CUDA|HIP)", text)
    check(bool(backend) == bool(gpus), f"{machine}/cache.cmake enables {backend}")
    check(("STRATA_GPU_AWARE_MPI" in text) == bool(gpus), f"{machine}/cache.cmake: GPU-aware MPI")
    check(("MPICH_GPU_SUPPORT_ENABLED=1" in environment) == bool(gpus), f"{machine}/environment.sh: GPU-aware MPI")

# Which GPU a rank sees.
for machine, variable, expected in (("perlmutter", "CUDA_VISIBLE_DEVICES", ["3", "2", "1", "0"]),
                                    ("lumi-g", "ROCR_VISIBLE_DEVICES", [str(i) for i in range(8)])):
    seen = [subprocess.run([os.path.join(jobscripts, machine, "select_gpu.sh"), "printenv", variable],
                           env={**os.environ, "SLURM_LOCALID": str(i)}, stdout=subprocess.PIPE, text=True).stdout.strip()
            for i in range(len(expected))]
    check(seen == expected, f"{machine}: ranks see GPUs {seen}")
# A rank's mask on LUMI-G: seven cores each, none twice, none the first of its L3 region of eight.
words = in_job("lumi-g", {}, 'echo "$STRATA_SRUN_FLAGS"').stdout.strip().split("mask_cpu:")[1].split(",")
masks = [int(word, 16) for word in words]
check(len(masks) == 8 and all(bin(mask).count("1") == 7 for mask in masks), "lumi-g: not eight masks of seven cores")
check(sum(masks) == 0xFEFEFEFEFEFEFEFE, "lumi-g: the masks overlap or use a reserved core")

missing = in_job("nowhere", {}, "true")
check(missing.returncode == 1 and "STRATA_MACHINE" in missing.stdout, f"an unknown machine: {missing.stdout}")
other = subprocess.run(["bash", "-uc", f"source {shlex.quote(jobscripts)}/machine.sh"], stderr=subprocess.PIPE, text=True,
                       env={"PATH": os.environ["PATH"], "STRATA_HOME": source, "STRATA_LAUNCH": "aprun"})
check(other.returncode == 1 and "srun or mpirun" in other.stderr, f"an unknown launcher: {other.stderr}")

sys.exit("test_machines: " + "\n".join(wrong) if wrong else 0)
