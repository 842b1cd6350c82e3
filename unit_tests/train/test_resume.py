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
  name_model: NAME
  output_dir: FOLDER
  dataset: FOLDER/data.h5
  num_models_to_save: 2
  validate_amount: 5
  log_train_loss_amount: 1000
  checkpoint_every: 7
"""
TIMES = ("bytes_per_second", "gemm_fraction", "elapsed_seconds", "peak_memory")
program = sys.argv[2:] + [sys.argv[1]]


def check(condition, message):
    if not condition:
        sys.exit(f"test_resume: {message}")


def command(folder, name):
    deck = os.path.join(folder, name + ".yaml")
    with open(deck, "w") as out:
        out.write(DECK.replace("NAME", name).replace("FOLDER", folder))
    return program + ["train", deck, "--quiet"]


def records(folder, name):
    with open(os.path.join(folder, name, "metrics.jsonl")) as lines:
        found = [json.loads(line) for line in lines]
    return [{key: value for key, value in record.items() if key not in TIMES} for record in found]


def done(folder, name):
    return os.path.exists(os.path.join(folder, name, "DONE"))


def final_checkpoint(folder, name):
    """The arrays of the newest checkpoint as text, through `strata info` where h5dump is missing."""
    path = os.path.join(folder, name, "latest.h5")
    check(os.path.basename(os.path.realpath(path)) == "step_0000000120.h5", f"{path} is not the last step")
    with open(path, "rb") as data:
        # The deck inside names the run; both names have equal length, so nothing else may differ.
        return data.read().replace(name.encode(), b"*****")


def disturb(folder, name, moments):
    """Sends signals until the run is done; returns how many it survived."""
    count = 0
    while not done(folder, name):
        check(count < 60, "the run makes no headway")
        which, delay = moments(count)
        process = subprocess.Popen(command(folder, name), stderr=subprocess.PIPE, start_new_session=True)
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


with tempfile.TemporaryDirectory() as folder:
    text = os.path.join(folder, "text")
    generator = random.Random(1)
    with open(text, "w") as out:
        out.write(" ".join(generator.choice(["slate", "gneiss", "marl", "tuff", "loess"]) for _ in range(8000)))
    subprocess.run([sys.argv[1], "pack", "--output", os.path.join(folder, "data.h5"), "--train", text, "--validation", text],
                   check=True, stdout=subprocess.DEVNULL)
    begin = time.time()
    subprocess.run(command(folder, "whole"), check=True)
    duration = time.time() - begin
    expected = records(folder, "whole")
    check(len([r for r in expected if r["split"] == "train"]) == 120, "a record for each step")
    checkpoint = final_checkpoint(folder, "whole")

    kills = disturb(folder, "dead1", lambda i: (signal.SIGKILL, generator.uniform(0.3, 1.0) * duration * (1 + i / 4)))
    check(kills > 0, "the run was over before it could be killed")
    check(records(folder, "dead1") == expected, "losses differ after SIGKILL")
    check(final_checkpoint(folder, "dead1") == checkpoint, "the final checkpoint differs after SIGKILL")

    stops = disturb(folder, "stop1",
                    lambda i: ((signal.SIGTERM, signal.SIGUSR1)[i % 2], generator.uniform(0.4, 0.8) * duration))
    check(stops > 0, "the run was over before it could be stopped")
    check(records(folder, "stop1") == expected, "losses differ after SIGTERM and SIGUSR1")
    check(final_checkpoint(folder, "stop1") == checkpoint, "the final checkpoint differs after SIGTERM and SIGUSR1")
    print(f"survived {kills} kills and {stops} stops of a run of {duration:.1f} s")
