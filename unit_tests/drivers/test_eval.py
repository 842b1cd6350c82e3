#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""strata eval side by side, sliding, strided and both, on one rank and two.

usage: test_eval.py STRATA MPIEXEC NUMPROC_FLAG [MPIEXEC_FLAG...]
"""
import json
import sys
import unittest

from program import DECK, InFolder, Program, words, write

PROGRAM = Program(*sys.argv[1:])
strata = PROGRAM.output
SHORT = ("train.target_elements=8", "train.batch_size=4", "params.seq_lens=[8, 8]", "params.input_seq_len=64", "--quiet",
         "params.block={block_type: transformer, attn_head_dims: 8, attn_num_heads: 2, attn_use_rot_embs: true, "
         "pos_emb_type: fixed}")


class Evaluations(InFolder):
    def setUp(self):
        super().setUp()
        write("text", words(800, 2))
        write("deck.yaml", DECK)
        strata("pack", "--output", "data.h5", "--split", "0.7,0.3", "--split-within", "text")
        strata("train", "deck.yaml", *SHORT)

    def test_strided_and_sliding(self):
        arguments = ("eval", "--checkpoint", "run", "--data", "data.h5", "--split", "validation")
        seen = {}
        for name, more in {"basic": (), "sliding": ("--stride", "32"), "strided": ("--strided",),
                           "both": ("--stride", "32", "--strided")}.items():
            one, two = (json.loads(strata(*arguments, *more, "--json", ranks=ranks)) for ranks in (1, 2))
            for result in (one, two):
                for key in ("seconds", "made_by", "limits"):
                    del result[key]
            self.assertEqual(one, two)
            self.assertEqual(one["strided"], "--strided" in more)
            self.assertEqual(one["stride"], 32 if "--stride" in more else 64)
            self.assertIn(f"{one['bits_per_byte']:.6f} bits per byte over {one['bytes']} bytes",
                          strata(*arguments, *more))
            seen[name] = one
        for result in seen.values():
            self.assertEqual(result["bytes"], seen["basic"]["bytes"])
        self.assertEqual(len({result["loss"] for result in seen.values()}), 4)
        # Behind the first patch of a window only the first half of a patch counts.
        counts = [entry["bytes"] for entry in seen["strided"]["position_in_patch"]]
        self.assertLess(max(counts[4:]), min(counts[:4]) / 4)

    def test_a_model_without_patches_is_refused(self):
        one_stage = ["params.hidden_dims=[16]", "params.num_layers=[1]", "params.seq_lens=[64]", "io.name_model=flat"]
        strata("train", "deck.yaml", *SHORT, *one_stage)
        arguments = ("--checkpoint", "flat", "--data", "data.h5", "--split", "validation")
        self.assertIn("no patches", PROGRAM.refusal("eval", *arguments, "--strided"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
