#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The program killed with SIGKILL at random moments, and stopped by SIGTERM and SIGUSR1: run again, it must end with the
losses and the final checkpoint of a run that nobody disturbed.

usage: test_resume.py STRATA [LAUNCHER...]
"""
import json
import os
import random
import signal
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
  block: {block_type: transformer, attn_head_dims: 16, attn_num_heads: 2, attn_use_rot_embs: true, attn_dropout: 0.1}
train:
  target_elements: 480
  target_elements_strategy: batch
  batch_size: 1
  gradient_accumulate_every: 4
  learning_rate: 0.002
  shuffle_train: true
io:
  name_model: run
  output_dir: .
  dataset: ../data.h5
  num_models_to_save: 2
  validate_amount: 5
  log_train_loss_amount: 1000
  checkpoint_every: 7
"""
TIMES = ("bytes_per_second", "step_seconds", "optimizer_seconds", "communication_exposed_seconds",
         "communication_hidden_seconds", "gemm_fraction", "elapsed_seconds", "peak_memory")
program = sys.argv[2:] + [sys.argv[1]]


def check(condition, message):
    if not condition:
        sys.exit(f"test_resume: {message}")


def start(place):
    """A run in a folder of its own; all have the same deck, so that their checkpoints may be compared byte by byte."""
    os.makedirs(place, exist_ok=True)
    with open(os.path.join(place, "deck.yaml"), "w") as out:
        out.write(DECK)
    return subprocess.Popen(program + ["train", "deck.yaml", "--quiet"], cwd=place, stderr=subprocess.PIPE,
                            start_new_session=True)


def records(place):
    with open(os.path.join(place, "run", "metrics.jsonl")) as lines:
        found = [json.loads(line) for line in lines]
    return [{key: value for key, value in record.items() if key not in TIMES} for record in found]


def final_checkpoint(place):
    path = os.path.join(place, "run", "latest.h5")
    check(os.path.basename(os.path.realpath(path)) == "step_0000000120.h5", f"{path} is not the last step")
    with open(path, "rb") as data:
        return data.read()


def disturb(place, moments):
    """Sends signals until the run is done; returns how many it survived."""
    count = 0
    while not os.path.exists(os.path.join(place, "run", "DONE")):
        check(count < 60, "the run makes no headway")
        which, delay = moments(count)
        process = start(place)
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            if which == signal.SIGKILL:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.send_signal(which)
            count += 1
        errors = process.communicate()[1].decode()
        if process.returncode == 75:
            check("run the same command again" in errors, f"no remark on how to continue: {errors}")
        elif which != signal.SIGKILL:
            check(process.returncode in (0, -which), f"status {process.returncode}: {errors}")
    return count


def catches(pid, which):
    """Whether the process has a handler for the signal by now."""
    with open(f"/proc/{pid}/status") as lines:
        mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return mask >> (which - 1) & 1 == 1


def stop_at_once(place):
    """A signal that comes before the run has made its first step; the program has not even read its deck."""
    process = start(place)
    deadline = time.time() + 60
    while not catches(process.pid, signal.SIGUSR1):
        check(process.poll() is None and time.time() < deadline, "the program does not catch SIGUSR1")
    check(not os.path.exists(os.path.join(place, "run")), "SIGUSR1 is caught only when the run has begun")
    process.send_signal(signal.SIGUSR1)
    errors = process.communicate()[1].decode()
    check(process.returncode == 75, f"status {process.returncode} after an early SIGUSR1: {errors}")
    with open(os.path.join(place, "run", "metrics.jsonl")) as lines:
        check(len(lines.readlines()) == 1, "an early SIGUSR1 stops after the first step")


with tempfile.TemporaryDirectory() as folder:
    text = os.path.join(folder, "text")
    generator = random.Random(1)
    with open(text, "w") as out:
        out.write(" ".join(generator.choice(["slate", "gneiss", "marl", "tuff", "loess"]) for _ in range(8000)))
    subprocess.run([sys.argv[1], "pack", "--output", os.path.join(folder, "data.h5"), "--train", text, "--validation", text],
                   check=True, stdout=subprocess.DEVNULL)
    stop_at_once(os.path.join(folder, "early"))
    whole, killed, stopped = (os.path.join(folder, name) for name in ("whole", "killed", "stopped"))
    begin = time.time()
    process = start(whole)
    errors = process.communicate()[1].decode()
    check(process.returncode == 0, errors)
    duration = time.time() - begin
    expected = records(whole)
    check(len([r for r in expected if r["split"] == "train"]) == 120, "not a record for each step")
    checkpoint = final_checkpoint(whole)

    kills = disturb(killed, lambda i: (signal.SIGKILL, generator.uniform(0.2, 0.5) * duration * (1 + i / 4)))
    check(kills > 0, "the run was over before it could be killed")
    check(records(killed) == expected, "losses differ after SIGKILL")
    check(final_checkpoint(killed) == checkpoint, "the final checkpoint differs after SIGKILL")

    stops = disturb(stopped, lambda i: ((signal.SIGTERM, signal.SIGUSR1)[i % 2], generator.uniform(0.4, 0.8) * duration))
    check(stops > 0, "the run was over before it could be stopped")
    check(records(stopped) == expected, "losses differ after SIGTERM and SIGUSR1")
    check(final_checkpoint(stopped) == checkpoint, "the final checkpoint differs after SIGTERM and SIGUSR1")
    print(f"survived {kills} kills and {stops} stops of a run of {duration:.1f} s")
