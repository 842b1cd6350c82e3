#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""jobscripts/train.sbatch on a real Slurm: time limit, signals, job arrays, launchers, two nodes, requeue loops.

usage: with_slurm.sh test_slurm.py STRATA SOURCE_FOLDER
"""
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time

DECK = """
params:
  num_tokens: 257
  pad_token_id: 256
  hidden_dims: [32, 32]
  num_layers: [2, 2]
  seq_lens: [64, 4]
  train_checkpoint_chunks: null
  input_seq_len: 256
  block: {{block_type: transformer, attn_head_dims: 16, attn_num_heads: 2, attn_use_rot_embs: true, attn_dropout: 0.1}}
train:
  target_elements: {windows}
  target_elements_strategy: batch
  batch_size: 1
  gradient_accumulate_every: 4
  learning_rate: 0.002
  shuffle_train: true
io:
  name_model: run
  output_dir: runs   # of the job's folder
  dataset: ../data.h5
  num_models_to_save: 1
  validate_amount: 1
  log_train_loss_amount: 1000000
  checkpoint_every: 10
"""
WINDOWS_PER_STEP = 4
TIMES = ("bytes_per_second", "step_seconds", "optimizer_seconds", "communication_exposed_seconds",
         "communication_hidden_seconds", "gemm_fraction", "elapsed_seconds", "peak_memory")
strata, source = (os.path.abspath(path) for path in sys.argv[1:3])
begin = time.time()


def check(condition, message):
    if not condition:
        sys.exit(f"test_slurm: {message}")


def say(text):
    print(f"{time.time() - begin:6.1f} s  {text}", flush=True)


def output_of(*command):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check(result.returncode == 0, f"{' '.join(command)}: {result.stdout}")
    return result.stdout


class Job:
    """A job of train.sbatch in a folder of its own; all decks and names are equal, so that checkpoints may be compared."""

    def __init__(self, name, steps, options=(), overrides=(), **environment):
        self.place = os.path.join(top, name)
        os.makedirs(self.place)
        with open(os.path.join(self.place, "deck.yaml"), "w") as out:
            out.write(DECK.format(windows=steps * WINDOWS_PER_STEP))
        self.variables = {"STRATA_HOME": source, "STRATA_PROGRAM": strata, "STRATA_MACHINE": "debian", **environment}
        self.command = ["sbatch", "--parsable", f"--job-name={name}", "--time=30", "--ntasks=1", *options,
                        os.path.join(source, "jobscripts", "train.sbatch"), "deck.yaml", "--quiet", *overrides]
        self.name, self.number, self.steps = name, self.submit(), steps

    def submit(self):
        result = subprocess.run(self.command, cwd=self.place, env={**os.environ, **self.variables},
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        check(result.returncode == 0, f"{' '.join(self.command)}: {result.stdout}")
        return result.stdout.strip()

    def facts(self, number=None):
        text = output_of("scontrol", "show", "job", "-o", number or self.number)
        return dict(pair.split("=", 1) for pair in text.split() if "=" in pair)

    def run(self, name="run"):
        return os.path.join(self.place, "runs", name)

    def log(self):
        texts = []
        for file in sorted(os.listdir(self.place)):
            if file.endswith(".log"):
                with open(os.path.join(self.place, file)) as lines:
                    texts.append(lines.read())
        return "\n".join(texts)

    def step(self):
        folder = os.path.join(self.run(), "checkpoints")
        files = os.listdir(folder) if os.path.isdir(folder) else []
        return max((int(f[5:15]) for f in files if re.fullmatch(r"step_\d{10}\.h5", f)), default=0)

    def is_over(self):
        return os.path.exists(os.path.join(self.run(), "DONE"))

    def wait(self, expected="COMPLETED", number=None):
        while True:
            facts = self.facts(number)
            if facts["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"):
                break
            check(time.time() - begin < LIMIT, f"{self.name} does not end: {facts}\n{self.log()}")
            time.sleep(0.2)
        check(facts["JobState"] == expected, f"{self.name} is {facts['JobState']}, not {expected}: {self.log()}")
        say(f"{self.name}: {expected}, {facts['Restarts']} restarts")
        return facts

    def done(self, starts):
        """Waits for the end. starts: how often the program began, at least."""
        facts = self.wait()
        check(int(facts["Restarts"]) >= starts - 1, f"{self.name} has not been requeued: {self.log()}")
        check(os.path.exists(os.path.join(self.run(), "DONE")), f"{self.name} left no DONE: {self.log()}")
        check(not os.path.exists(os.path.join(self.run(), "STOPPED")), f"{self.name} left STOPPED")
        with open(os.path.join(self.run(), "provenance.json")) as data:
            found = json.load(data)
        check(len(found) >= starts and len(found) - 1 <= int(facts["Restarts"]), f"{self.name} began {len(found)} times")
        return found

    def final(self):
        path = os.path.join(self.run(), "latest.h5")
        check(os.path.basename(os.path.realpath(path)) == f"step_{self.steps:010d}.h5", f"{path} is not the last step")
        with open(path, "rb") as data:
            return data.read()

    def losses(self, name="run"):
        with open(os.path.join(self.run(name), "metrics.jsonl")) as lines:
            found = [json.loads(line) for line in lines]
        return [{key: value for key, value in record.items() if key not in TIMES} for record in found]


def as_soon_as_each_trains(actions):
    """Does to each job what its function does, when the first checkpoint is there: jobs are in nobody's order."""
    waiting = dict(actions)
    while waiting:
        for job in [job for job in waiting if job.step() >= 10]:
            check(not job.is_over(), f"{job.name} was over before it could be signalled")
            waiting.pop(job)(job)
        check(time.time() - begin < LIMIT, f"no checkpoint of {', '.join(job.name for job in waiting)}")
        time.sleep(0.05)


def pack():
    generator = random.Random(1)
    text = os.path.join(top, "text")
    with open(text, "w") as out:
        out.write(" ".join(generator.choice(["slate", "gneiss", "marl", "tuff", "loess"]) for _ in range(8000)))
    output_of(strata, "pack", "--output", os.path.join(top, "data.h5"), "--train", text)


def steps_per_second():
    place = os.path.join(top, "speed")
    os.makedirs(place)
    with open(os.path.join(place, "deck.yaml"), "w") as out:
        out.write(DECK.format(windows=40 * WINDOWS_PER_STEP))
    subprocess.run([strata, "train", "deck.yaml", "--quiet"], cwd=place, check=True,
                   env={**os.environ, "OMP_NUM_THREADS": "1"})
    with open(os.path.join(place, "runs", "run", "metrics.jsonl")) as lines:
        seconds = sorted(json.loads(line)["step_seconds"] for line in lines)
    return 1 / seconds[len(seconds) // 2]


LIMIT = 400   # seconds; far beyond what is needed
two_ranks = ("--ntasks=2",), ("train.gradient_accumulate_every=2",)
with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as top:   # jobs may still run when a check fails
    pack()
    rate = steps_per_second()
    short, long = (int(rate * seconds) // 10 * 10 + 10 for seconds in (3, 36))
    say(f"{rate:.0f} steps per second; runs of {short} and {long} steps")

    rivals = []   # jobs in a folder where another trains
    # A limit of one minute. Slurm looks every 30 s which jobs to warn, so the signal comes 3 to 33 s after the start.
    limited = Job("limited", long, ["--time=1", "--signal=B:USR1@27"])
    unlimited = Job("unlimited", long)
    stub = os.path.join(top, "stub")
    with open(stub, "w") as out:
        out.write("#!/bin/sh\nexit 75\n")
    os.chmod(stub, 0o755)
    stuck = Job("stuck", short, STRATA_PROGRAM=stub)
    signalled = Job("signalled", short, overrides=["train.seed=1"])
    cancelled = Job("cancelled", 1000000)
    srun = Job("srun", short, overrides=["train.seed=1"])
    array = Job("array", short, ["--array=1-2"])
    mpirun = Job("mpirun", short, overrides=["train.seed=1"], STRATA_LAUNCH="mpirun")
    pinned = Job("pinned", short, overrides=["train.seed=1"], STRATA_MACHINE="generic-slurm")
    srun_2 = Job("srun_2", short, *two_ranks)
    mpirun_2 = Job("mpirun_2", short, *two_ranks, STRATA_LAUNCH="mpirun")
    # Nodes that share a host talk through its loopback device, which Open MPI leaves out unless told.
    loopback = {"OMPI_MCA_btl": "self,tcp", "OMPI_MCA_btl_tcp_if_include": "lo", "OMPI_MCA_oob_tcp_if_include": "lo"}
    two_nodes = [Job(f"two_nodes_{launcher}", short, ["--nodes=2", "--ntasks=2", "--ntasks-per-node=1"], two_ranks[1],
                     STRATA_LAUNCH=launcher, **loopback) for launcher in ("srun", "mpirun")]

    # srun passes a signal to the job's steps on to the ranks; mpirun belongs to the batch script.
    as_soon_as_each_trains({
        signalled: lambda job: output_of("scancel", "--signal=USR1", job.number),
        mpirun_2: lambda job: output_of("scancel", "--batch", "--signal=USR1", job.number),
        cancelled: lambda job: output_of("scancel", job.number),
        unlimited: lambda job: rivals.append(job.submit())})
    say("signals sent")

    srun.done(starts=1)
    signalled.done(starts=2)
    check(signalled.final() == srun.final(), "the final checkpoint differs after scancel --signal=USR1")
    mpirun.done(starts=1)
    check(mpirun.final() == srun.final(), "mpirun and srun make different checkpoints")
    pinned.done(starts=1)
    check(pinned.final() == srun.final(), "jobscripts/generic-slurm and jobscripts/debian make different checkpoints")

    check(srun_2.done(starts=1)[0]["ranks"] == 2, "srun did not start two ranks")
    check(mpirun_2.done(starts=2)[0]["ranks"] == 2, "mpirun did not start two ranks")
    check(mpirun_2.final() == srun_2.final(), "the final checkpoint of two ranks differs after scancel --batch --signal=USR1")
    for job in two_nodes:
        check(job.done(starts=1)[0]["ranks"] == 2, f"{job.name} did not make two ranks")
        check(job.facts()["NodeList"] == "node[1-2]", f"{job.name} was not on two nodes")
        check(job.final() == srun_2.final(), "one and two nodes make different checkpoints")

    for seed in ("1", "2"):
        array.wait(number=f"{array.number}_{seed}")
        check(os.path.exists(os.path.join(array.run(f"run-seed{seed}"), "DONE")), f"no DONE for seed {seed}")
    check(array.losses("run-seed1") == srun.losses(), "task 1 of the array is not the run of seed 1")
    check(array.losses("run-seed2") != srun.losses(), "seeds 1 and 2 make the same losses")

    cancelled.wait("CANCELLED")
    check(10 <= cancelled.step() < cancelled.steps, "a cancelled run did not keep what it had")
    facts = stuck.wait("FAILED")
    with open(os.path.join(stuck.run(), "STOPPED")) as reason:
        check("no progress twice in a row" in reason.read(), "STOPPED does not say why")
    check(facts["Restarts"] == "1" and facts["ExitCode"] == "1:0", f"a run without progress was not stopped: {facts}")

    unlimited.wait("FAILED", rivals[0])
    check(f"job {unlimited.number} trains" in unlimited.log(), f"two jobs may train in one folder: {unlimited.log()}")
    unlimited.done(starts=1)
    limited.done(starts=2)
    check("requeueing" in limited.log(), "no signal came before the time limit")
    check(limited.final() == unlimited.final(), "the final checkpoint differs after a time limit")
    check(cancelled.facts()["JobState"] == "CANCELLED", "a cancelled job came back")
    say("everything equal")
