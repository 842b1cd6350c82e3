#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""parity_check must refuse fixtures that are off by little, and accept an untouched copy.

Usage: test_must_fail.py PARITY_CHECK GOLDEN_FOLDER
"""
import os
import shutil
import subprocess
import sys
import tempfile

import h5py

program, golden = sys.argv[1:]


def run(*files):
    done = subprocess.run([program, *files], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def add(name, amount, last=False):
    """Adds `amount`, relative to the largest element, to one element of a dataset: the middle or the last one."""

    def change(file):
        values = file[name][...]
        flat = values.reshape(-1)
        flat[-1 if last else flat.size // 2] += amount * abs(flat).max()
        file[name][...] = values

    return change


def flip_dependency(file):
    values = file["/outputs/dependency"][...]
    values[0, -1] ^= 1
    file["/outputs/dependency"][...] = values


def remove(name):
    def change(file):
        del file[name]

    return change


def unknown_kind(file):
    file.attrs["model"] = "perceptron"


# What is changed in which file, and what the output must say. The amounts are small, but above the bounds.
CASES = [
    ("mblm_tt.h5", add("/params/stage_models.1.layers.0.0.to_q.weight", 1e-2), "logits"),
    ("mblm_tt.h5", add("/params/to_logits.bias", 1e-3), "logits"),
    ("mblm_tt.h5", add("/outputs/loss", 1e-4), "loss is"),
    ("mblm_tt.h5", add("/grads/start_tokens.1", 1e-4), "start_tokens.1"),
    ("mblm_tt.h5", flip_dependency, "dependency matrices differ"),
    ("mblm_tt.h5", remove("/params/start_tokens.0"), "/params holds"),
    ("mblm_tt.h5", unknown_kind, "perceptron"),
    ("encoder_tt.h5", add("/outputs/logits", 1e-4), "logits"),
    ("megabyte_tt.h5", add("/outputs/logits", 1e-4), "logits"),
    ("block_transformer_odd.h5", add("/L7/outputs/y", 1e-4), "/L7"),
    ("block_transformer_odd.h5", add("/L40/outputs/dx", 1e-4), "/L40/dx"),
    ("block_mamba1.h5", add("/L7/outputs/y_step", 1e-4), "/L7/y token by token"),
    ("block_mamba1.h5", add("/L40/final_state/layers.1.conv", 1e-4), "/L40/final_state"),
    ("block_mamba1.h5", add("/L7/final_state/layers.0.ssm", 1e-3), "/L7/final_state"),
    ("block_mamba1.h5", add("/L7/grads/layers.1.mixer.A_log", 1e-4), "/L7/grads/layers.1.mixer.A_log"),
    ("block_mamba2.h5", add("/L40/outputs/y_step", 1e-4), "/L40/y token by token"),
    ("block_mamba2.h5", add("/L1/final_state/layers.0.conv", 1e-4, last=True), "/L1/final_state"),
    ("block_mamba2.h5", add("/L40/final_state/layers.1.ssm", 1e-3), "/L40/final_state"),
    ("mblm_m2t.h5", add("/params/stage_models.0.layers.1.mixer.dt_bias", 1e-2), "logits"),
    ("block_encoder.h5", add("/params/layers.1.1.4.weight", 1e-2), "/L40"),
]

problems = []
with tempfile.TemporaryDirectory() as folder:
    copy = os.path.join(folder, "copy.h5")
    for case, (source, change, says) in enumerate(CASES):
        shutil.copyfile(os.path.join(golden, source), copy)
        with h5py.File(copy, "r+") as file:
            change(file)
        status, output = run(copy)
        print(output)
        if status == 0 or "FAIL" not in output or says not in output:
            problems.append(f"case {case} ({source}, wants '{says}') has status {status}:\n{output}")
    # One bad file among good ones is enough; an untouched copy is a good one.
    good = os.path.join(folder, "good.h5")
    shutil.copyfile(os.path.join(golden, source), good)
    status, output = run(good)
    if status != 0:
        problems.append(f"an untouched copy of {source} is refused:\n{output}")
    for files in ([good, copy], [copy, good]):
        status, output = run(*files)
        if status == 0 or "1 of 2 files" not in output:
            problems.append(f"status {status} for a good and a bad file:\n{output}")
    with open(copy, "wb") as file:
        file.write(b"not HDF5")
    for arguments in ([copy], [os.path.join(folder, "missing.h5")], []):
        status, output = run(*arguments)
        if status == 0:
            problems.append(f"status 0 for {arguments}:\n{output}")
print(f"{len(CASES)} changed copies")
sys.exit("\n".join(problems) if problems else 0)
