#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training steps on one and on two threads: the same bits in the loss, the parameters and the optimiser's moments, which
hold every gradient. The products are so small that the BLAS library, whose rounding may depend on its threads, takes one.

usage: test_threads.py STRATA
"""
import json
import sys
import unittest

import h5py

from program import DECK, InFolder, Program, read, words, write

strata = Program(sys.argv[1]).output
BLOCK = "{block_type: transformer, attn_head_dims: 12, attn_num_heads: 2, attn_use_rot_embs: true%s}"
ATTENTION = f"params.block=[{BLOCK % ''}, {BLOCK % ', cross_patch_attention: 3'}]"
CONVOLUTIONS = "params.patch_encoder=convolution"
THREE_STAGES = ("params.hidden_dims=[40, 32, 24]", "params.num_layers=[1, 1, 1]", "params.seq_lens=[16, 4, 4]",
                f"params.block=[{', '.join([BLOCK % ''] + 2 * [BLOCK % ', cross_patch_attention: 3'])}]")
MODELS = {
    "convolutions": (CONVOLUTIONS,),
    "attention": (ATTENTION,),
    "both": (CONVOLUTIONS, *THREE_STAGES),
}


def arrays(path):
    """The bytes of every array of a checkpoint that a step changes."""
    result = {}
    with h5py.File(path, "r") as file:
        for group in ("parameters", "optimizer"):
            file[group].visititems(lambda name, item, group=group: isinstance(item, h5py.Dataset)
                                   and result.update({f"{group}/{name}": item[()].tobytes()}))
    return result


def losses(folder):
    lines = [json.loads(line) for line in read(f"{folder}/metrics.jsonl").splitlines()]
    return [value for line in lines for key, value in line.items() if "loss" in key or "norm" in key]


class Threads(InFolder):
    def test_two_steps_have_the_same_bits(self):
        write("text", words(1500, 3))
        write("deck.yaml", DECK)
        strata("pack", "--output", "data.h5", "--train", "text", "--validation", "text")
        for model, changes in MODELS.items():
            with self.subTest(model=model):
                runs = [f"{model}{threads}" for threads in (1, 2)]
                for threads, run in enumerate(runs, 1):
                    strata("train", "deck.yaml", *changes, "train.batch_size=1", "train.target_elements=2", "--quiet",
                           f"io.name_model={run}", threads=threads)
                self.assertTrue(losses(runs[0]))
                self.assertEqual(losses(runs[0]), losses(runs[1]))
                one, two = (arrays(f"{run}/latest.h5") for run in runs)
                self.assertEqual(any("convolutions.2.bias" in name for name in one), CONVOLUTIONS in changes)
                self.assertEqual(one.keys(), two.keys())
                self.assertEqual([name for name in one if one[name] != two[name]], [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
