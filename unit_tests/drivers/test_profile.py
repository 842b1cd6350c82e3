#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""strata train --profile and eval --profile, on one rank and two, and a Kokkos Tools library beside them.

usage: test_profile.py STRATA TOOL MPIEXEC NUMPROC_FLAG [MPIEXEC_FLAG...]
"""
import json
import os
import sys
import tempfile
import unittest

from program import DECK, Program, words, write

STRATA, TOOL, *MPIEXEC = sys.argv[1:]
TOOL = os.path.abspath(TOOL)
STEPS, LAYERS = 6, 2
SHORT = ("train.target_elements=24", "train.batch_size=2", "train.gradient_accumulate_every=2", "train.learning_rate=0.003")
strata = Program(STRATA, *MPIEXEC).output


class Profiles(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        os.chdir(self.folder.name)
        write("text", words(4000, 1))
        write("deck.yaml", DECK)
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
        strata("train", "deck.yaml", *SHORT, "io.name_model=plain", "--quiet")
        for ranks in (1, 2):
            each = f"train.gradient_accumulate_every={2 // ranks}"
            table = strata("train", "deck.yaml", *SHORT, f"io.name_model=on{ranks}", each, "--quiet", "--profile", ranks=ranks)
            with open(f"on{ranks}/profile.json") as file:
                profile = json.load(file)
            self.check(profile, ranks)
            self.assertEqual(profile["steps"], STEPS)
            for word in ("linear_backward_weight", "stage 1 forward", "stage 2 backward", "unaccounted", "of the limit"):
                self.assertIn(word, table)
            self.assertEqual("over ranks" in table, ranks > 1)
        self.assertFalse(os.path.exists("plain/profile.json"))

    def test_eval(self):
        strata("train", "deck.yaml", *SHORT, "--quiet")
        arguments = ("eval", "--checkpoint", "run", "--data", "data.h5", "--split", "validation")
        plain, table = strata(*arguments), strata(*arguments, "--profile")
        self.assertEqual(plain.split(" (")[0], table.split(" (")[0])
        self.assertIn("evaluate, stage 1 forward", table)
        self.check(json.loads(strata(*arguments, "--profile", "--json"))["profile"], 1)
        self.assertNotIn("profile", json.loads(strata(*arguments, "--json")))

    def test_a_tools_library_sees_balanced_regions(self):
        strata("train", "deck.yaml", *SHORT, "--quiet", KOKKOS_TOOLS_LIBS=TOOL, STRATA_TEST_TOOL_OUTPUT="seen.txt")
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
