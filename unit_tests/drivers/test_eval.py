#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""strata eval side by side, sliding, strided and both, on one rank and two.

usage: test_eval.py STRATA MPIEXEC NUMPROC_FLAG [MPIEXEC_FLAG...]
"""
import json
import os
import random
import subprocess
import sys
import tempfile
import unittest

STRATA, MPIEXEC, NUMPROC_FLAG, *FLAGS = sys.argv[1:]
STRATA = os.path.abspath(STRATA)
LIMIT = 300.0

DECK = """
params:
  num_tokens: 257
  pad_token_id: 256
  hidden_dims: [32, 16]
  num_layers: [1, 1]
  seq_lens: [8, 8]
  input_seq_len: 64
  block: {block_type: transformer, attn_head_dims: 8, attn_num_heads: 2, attn_use_rot_embs: true, pos_emb_type: fixed}
train: {target_elements: 8, target_elements_strategy: batch, batch_size: 4, learning_rate: 0.003}
io: {name_model: run, output_dir: ., dataset: data.h5, num_models_to_save: 1, validate_amount: 1}
"""


def strata(*arguments, ranks=1):
    launch = [MPIEXEC, NUMPROC_FLAG, str(ranks), *FLAGS] if ranks > 1 else []
    return subprocess.run([*launch, STRATA, *arguments], capture_output=True, text=True, timeout=LIMIT)


class Evaluations(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        os.chdir(self.folder.name)
        generator = random.Random(2)
        with open("text", "w") as file:
            file.write(" ".join(generator.choice(["slate", "gneiss", "marl", "tuff"]) for _ in range(800)))
        with open("deck.yaml", "w") as file:
            file.write(DECK)
        for command in (("pack", "--output", "data.h5", "--split", "0.7,0.3", "--split-within", "text"),
                        ("train", "deck.yaml", "--quiet")):
            done = strata(*command)
            self.assertEqual(done.returncode, 0, done.stderr)

    def tearDown(self):
        os.chdir("/")
        self.folder.cleanup()

    def test_strided_and_sliding(self):
        arguments = ("eval", "--checkpoint", "run", "--data", "data.h5", "--split", "validation")
        seen = {}
        for name, more in {"basic": (), "sliding": ("--stride", "32"), "strided": ("--strided",),
                           "both": ("--stride", "32", "--strided")}.items():
            one, two = (json.loads(strata(*arguments, *more, "--json", ranks=ranks).stdout) for ranks in (1, 2))
            for result in (one, two):
                del result["seconds"]
            self.assertEqual(one, two)
            self.assertEqual(one["strided"], "--strided" in more)
            self.assertEqual(one["stride"], 32 if "--stride" in more else 64)
            self.assertIn(f"{one['bits_per_byte']:.6f} bits per byte over {one['bytes']} bytes",
                          strata(*arguments, *more).stdout)
            seen[name] = one
        for result in seen.values():
            self.assertEqual(result["bytes"], seen["basic"]["bytes"])
        self.assertEqual(len({result["loss"] for result in seen.values()}), 4)
        # Behind the first patch of a window only the first half of a patch counts.
        counts = [entry["bytes"] for entry in seen["strided"]["position_in_patch"]]
        self.assertLess(max(counts[4:]), min(counts[:4]) / 4)

    def test_a_model_without_patches_is_refused(self):
        one_stage = ["params.hidden_dims=[16]", "params.num_layers=[1]", "params.seq_lens=[64]", "io.name_model=flat"]
        self.assertEqual(strata("train", "deck.yaml", "--quiet", *one_stage).returncode, 0)
        done = strata("eval", "--checkpoint", "flat", "--data", "data.h5", "--split", "validation", "--strided")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no patches", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
