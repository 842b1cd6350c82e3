#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Memory that runs take, against what was predicted for them; and runs that are refused before they begin.

usage: test_memory.py STRATA
"""
import json
import os
import re
import subprocess
import sys
import tempfile

STRATA = sys.argv[1]
TOLERANCE = 0.05
UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def check(condition, message):
    if not condition:
        sys.exit(f"test_memory: {message}")


def transformer(heads, width):
    return "{block_type: transformer, attn_head_dims: %d, attn_num_heads: %d, attn_use_rot_embs: true}" % (width, heads)


def mamba2(d_state=16):
    return "{block_type: mamba2, d_state: %d, d_conv: 4, expand: 2, headdim: 32}" % d_state


MAMBA1 = "{block_type: mamba1, d_state: 16, d_conv: 4, expand: 2}"
INNER = transformer(2, 16)


def deck(dims, layers, lens, window, blocks, **train):
    """A deck of one optimiser step, as a file in the current folder."""
    settings = {"target_elements": 1, "target_elements_strategy": "batch", "batch_size": 1, "learning_rate": 1e-4}
    settings.update(train)
    data = settings.pop("data", "data.h5")
    with open("deck.yaml", "w") as out:
        out.write(f"""params:
  hidden_dims: {dims}
  num_layers: {layers}
  seq_lens: {lens}
  input_seq_len: {window}
  block: [{", ".join(blocks)}]
train: {{{", ".join(f"{k}: {v}" for k, v in settings.items())}}}
io: {{name_model: run, output_dir: runs, dataset: {data}, checkpoint_every: 0}}
""")


def info(*arguments):
    done = subprocess.run([STRATA, "info", "deck.yaml", "--json", *arguments], capture_output=True, text=True)
    check(done.returncode == 0, f"info failed: {done.stderr}")
    return json.loads(done.stdout)["memory_per_rank"]


def train(*arguments):
    """Standard output, standard error, status and peak resident bytes of a run, of which nothing is left."""
    with open("out", "w") as out, open("err", "w") as err:
        process = subprocess.Popen([STRATA, "train", "deck.yaml", *arguments], stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
    left = os.path.exists("runs")
    subprocess.run(["rm", "-rf", "runs"], check=True)
    with open("out") as out, open("err") as err:
        return out.read(), err.read(), os.waitstatus_to_exitcode(status), 1024 * usage.ru_maxrss, left


def size(text):
    number, unit = text.split()
    return float(number) * UNITS[unit]


def compare(name, policy=None):
    """One step of the deck takes what is planned for it."""
    plan = info()
    check(plan["planned_bytes"] == sum(plan["component_bytes"].values()), f"{name}: components do not add up")
    out, err, status, peak, _ = train()
    check(status == 0, f"{name}: status {status}, {err}")
    line = re.search(r"memory: (\S+ \S+) predicted, (\S+ \S+) of them for the program, .*outer_tapes (\w+)", out)
    check(line, f"{name}: no line about memory in {out}")
    base = size(line[2])
    check(policy is None or line[3] == policy, f"{name}: policy {line[3]}")
    check(abs(size(line[1]) / (base + plan["planned_bytes"]) - 1) < 0.006, f"{name}: train plans {line[1]}")
    error = plan["planned_bytes"] / (peak - base) - 1
    print(f"{name}: planned {plan['planned_bytes'] / 1e6:.1f} MB, measured {(peak - base) / 1e6:.1f} MB, {100 * error:+.1f} %",
          flush=True)
    check(peak - base > 80e6, f"{name}: too small to tell")
    check(abs(error) < TOLERANCE, f"{name}: the prediction is off by more than {100 * TOLERANCE} %")
    return peak


def measured():
    long_transformer = ([128, 32], [6, 1], [100000, 16], 50000, [transformer(4, 32), INNER])
    deck(*long_transformer, outer_chunk=500, outer_tapes="keep")
    kept = compare("Transformer, long window, tapes kept", "keep")
    deck(*long_transformer, outer_chunk=500, outer_tapes="rebuild")
    rebuilt = compare("Transformer, long window, tapes rebuilt", "rebuild")
    check(rebuilt < 0.8 * kept, "rebuilding saves nothing")
    long_mamba = ([256, 32], [10, 1], [100000, 32], 50000, [mamba2(64), INNER])
    for policy in ("keep", "rebuild", "two_level"):
        deck(*long_mamba, outer_chunk=20, outer_tapes=policy)
        compare(f"Mamba-2, long window, {policy}", policy)
    deck([256, 32], [8, 1], [100000, 32], 30000, [MAMBA1, INNER], outer_chunk=200, outer_tapes="keep")
    compare("Mamba-1, tapes kept")
    deck([256, 32], [16, 1], [1024, 16], 4096, [transformer(4, 64), INNER])
    compare("large model, short window")
    deck([256, 128, 32], [4, 2, 1], [1000, 20, 10], 40000, [mamba2(), transformer(4, 16), INNER])
    compare("three stages")
    deck([256, 32], [6, 1], [1024, 16], 4096, [transformer(4, 64), INNER], batch_size=2, deterministic="true",
         gradient_accumulate_every=2)
    compare("sums in fixed order")
    deck([128, 32], [6, 1], [1024, 16], 4096, [transformer(4, 32), INNER], eval_batch_size=64, max_eval_steps=1,
         data="validated.h5")
    compare("validation in large batches")


def refused():
    deck([128, 32], [6, 1], [100000, 16], 200000, [transformer(4, 32), INNER], outer_tapes="keep", outer_chunk=500)
    peak = info()["predicted_peak_bytes"]
    out, err, status, _, left = train(f"train.memory={int(0.6 * peak)}")
    check(status == 1 and not left, f"status {status}, run folder left: {left}")
    check(err.startswith("strata: ") and err.count("\n") == 1, f"not one line: {err}")
    check(f"{int(0.6 * peak)} bytes" in err and "train.memory" in err, f"no available bytes in: {err}")
    predicted = re.search(r"\((\d+) bytes predicted", err)
    check(predicted and abs(int(predicted[1]) / peak - 1) < 0.05, f"no predicted bytes in: {err}")
    change = re.search(r"it would fit with (.*)", err)
    check(change and change[1].startswith("train.outer_tapes=rebuild"), f"no change in: {err}")
    fitting = info(*change[1].split(), f"train.memory={int(0.6 * peak)}")
    check(fitting["fits"] and fitting["outer_tapes"] == "rebuild", f"{change[1]} does not fit: {fitting}")
    for word in ("0", "lots", "-1"):
        done = subprocess.run([STRATA, "info", "deck.yaml", f"--memory={word}"], capture_output=True, text=True)
        check(done.returncode == 1 and "--memory" in done.stderr, f"--memory {word}: {done.stderr}")
    done = subprocess.run([STRATA, "info", "data.h5", "--memory=8G"], capture_output=True, text=True)
    check(done.returncode == 1 and "--memory" in done.stderr, f"--memory of a dataset: {done.stderr}")


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    with open("text", "wb") as text:
        text.write(bytes((7 * i * i + 3 * i) % 251 for i in range(300000)))
    for arguments in (["data.h5", "--train", "text"], ["validated.h5", "--train", "text", "--validation", "text"]):
        subprocess.run([STRATA, "pack", "--output", *arguments], check=True, stdout=subprocess.DEVNULL)
    refused()
    measured()
print("test_memory: passed")
