#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A model with a convolutional patch encoder in every command that meets one.

usage: test_patch_encoder.py STRATA MPIEXEC NUMPROC_FLAG [MPIEXEC_FLAG...]
"""
import json
import os
import sys
import unittest

from program import DECK, InFolder, Program, read, words, write

PROGRAM = Program(*sys.argv[1:])
strata = PROGRAM.output
ON = "params.patch_encoder=convolution"
SHORT = ("train.target_elements=64", "--quiet")


class PatchEncoder(InFolder):
    def setUp(self):
        super().setUp()
        write("text", words(1500, 3))
        write("deck.yaml", DECK)
        strata("pack", "--output", "data.h5", "--train", "text", "--validation", "text")

    def test_every_command(self):
        for threads in (1, 2):
            strata("train", "deck.yaml", ON, *SHORT, f"io.name_model=run{threads}", threads=threads)
        greedy = ("generate", "--prompt", "slate ", "--bytes", "40", "--temperature", "0", "--checkpoint")
        self.assertEqual(strata(*greedy, "run1"), strata(*greedy, "run1", threads=2))
        evaluation = ("eval", "--data", "data.h5", "--split", "validation", "--json", "--checkpoint")
        results = [json.loads(strata(*evaluation, run, threads=threads)) for run, threads in (("run1", 1), ("run2", 2))]
        self.assertAlmostEqual(results[0]["loss"], results[1]["loss"], places=5)  # but for the BLAS library's rounding
        # Byte by byte, with carries.
        scored = json.loads(strata("eval", "--checkpoint", "run1", "--score", "text", "--json"))
        self.assertAlmostEqual(scored["bits_per_byte"], results[0]["bits_per_byte"], places=5)
        strata("compress", "--checkpoint", "run1", "text", "--output", "packed")
        strata("decompress", "--checkpoint", "run1", "packed", "--output", "back")
        self.assertEqual(read("back"), read("text"))

    def test_formats_without_a_place_for_it_are_refused(self):
        strata("train", "deck.yaml", ON, *SHORT)
        message = PROGRAM.refusal("convert", "--from", "run", "--output", "out.safetensors")
        self.assertIn("patch_encoder convolution", message)
        self.assertFalse(os.path.exists("out.safetensors"))

    def test_it_needs_patches(self):
        one_stage = ("params.hidden_dims=[16]", "params.num_layers=[1]", "params.seq_lens=[256]",
                     "params.block={block_type: mamba2, d_state: 8, d_conv: 4, expand: 2, headdim: 16}")
        self.assertIn("patch_encoder", PROGRAM.refusal("info", "deck.yaml", ON, *one_stage))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
