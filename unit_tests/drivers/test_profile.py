#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""strata train --profile and eval --profile, on one rank and two, and a Kokkos Tools library beside them.

usage: test_profile.py STRATA TOOL MPIEXEC NUMPROC_FLAG [MPIEXEC_FLAG...]
"""
import json
import os
import random
import subprocess
import sys
import tempfile
import unittest

STRATA, TOOL, MPIEXEC, NUMPROC_FLAG, *FLAGS = sys.argv[1:]
STRATA, TOOL = os.path.abspath(STRATA), os.path.abspath(TOOL)
LIMIT = 300.0
STEPS, LAYERS = 6, 2

DECK = """
params:
  num_tokens: 257
  pad_token_id: 256
  hidden_dims: [32, 24]
  num_layers: [2, 1]
  seq_lens: [64, 4]
  input_seq_len: 256
  block:
    - {block_type: mamba2, d_state: 8, d_conv: 4, expand: 2, headdim: 16}
    - {block_type: transformer, attn_head_dims: 12, attn_num_heads: 2, attn_use_rot_embs: true}
train: {target_elements: 24, target_elements_strategy: batch, batch_size: 2, gradient_accumulate_every: 2,
        learning_rate: 0.003}
io: {name_model: run, output_dir: ., dataset: data.h5, num_models_to_save: 1, validate_amount: 1}
"""


def strata(*arguments, ranks=1, **variables):
    """Standard output of a command that must succeed."""
    launch = [MPIEXEC, NUMPROC_FLAG, str(ranks), *FLAGS] if ranks > 1 else []
    done = subprocess.run([*launch, STRATA, *arguments], capture_output=True, text=True, timeout=LIMIT,
                          env={**os.environ, **variables})
    if done.returncode != 0:
        raise AssertionError(f"{arguments}: {done.stderr}")
    return done.stdout


class Profiles(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        os.chdir(self.folder.name)
        generator = random.Random(1)
        with open("text", "w") as file:
            file.write(" ".join(generator.choice(["slate", "gneiss", "marl", "tuff"]) for _ in range(4000)))
        with open("deck.yaml", "w") as file:
            file.write(DECK)
        strata("pack", "--output", "data.h5", "--split", "0.9,0.1", "--split-within", "text")

    def tearDown(self):
        os.chdir("/")
        self.folder.cleanup()

    def check(self, profile, ranks):
        self.assertEqual(profile["ranks"], ranks)
        for rows in (profile["parts"].values(), [row["seconds"] for row in profile["sections"]]):
            self.assertAlmostEqual(sum(rows) / profile["seconds"], 1, places=6)
        counted = profile["model_flops"]["counted_on_this_rank"]
        formula = profile["model_flops"]["by_formula_on_all_ranks"]
        # Two ranks share the validation split unevenly.
        self.assertLess(abs(counted * ranks / formula - 1), 1e-9 if ranks == 1 else 0.35)

    def test_train(self):
        strata("train", "deck.yaml", "io.name_model=plain", "--quiet")
        for ranks in (1, 2):
            each = f"train.gradient_accumulate_every={2 // ranks}"
            table = strata("train", "deck.yaml", f"io.name_model=on{ranks}", each, "--quiet", "--profile", ranks=ranks)
            with open(f"on{ranks}/profile.json") as file:
                profile = json.load(file)
            self.check(profile, ranks)
            self.assertEqual(profile["steps"], STEPS)
            for word in ("linear_backward_weight", "stage 1 forward", "stage 2 backward", "unaccounted", "of the limit"):
                self.assertIn(word, table)
            self.assertEqual("over ranks" in table, ranks > 1)
        self.assertFalse(os.path.exists("plain/profile.json"))

    def test_eval(self):
        strata("train", "deck.yaml", "--quiet")
        arguments = ("eval", "--checkpoint", "run", "--data", "data.h5", "--split", "validation")
        plain, table = strata(*arguments), strata(*arguments, "--profile")
        self.assertEqual(plain.split(" (")[0], table.split(" (")[0])
        self.assertIn("evaluate, stage 1 forward", table)
        self.check(json.loads(strata(*arguments, "--profile", "--json"))["profile"], 1)
        self.assertNotIn("profile", json.loads(strata(*arguments, "--json")))

    def test_a_tools_library_sees_balanced_regions(self):
        strata("train", "deck.yaml", "--quiet", KOKKOS_TOOLS_LIBS=TOOL, STRATA_TEST_TOOL_OUTPUT="seen.txt")
        with open("seen.txt") as file:
            first, *lines = file.read().splitlines()
        self.assertEqual(first, "0 regions open, 0 closed too often")
        seen = {name: int(count) for count, name in (line.split(" ", 1) for line in lines)}
        for layer in range(1, LAYERS + 1):
            for direction in ("forward", "backward"):
                self.assertEqual(seen[f"stage 1/{direction}/layer {layer}"], 2 * STEPS)
        self.assertEqual(seen["loss"], 2 * STEPS)
        self.assertEqual(seen["optimizer"], 2 * STEPS)  # the norm, the update
        self.assertGreater(seen["kernel strata::ssd::output"], 0)
        for name in ("read data", "checkpoint", "reduce gradients", "evaluate/stage 2/forward/layer 1", "evaluate/loss"):
            self.assertIn(name, seen)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
