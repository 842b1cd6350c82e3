#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""train.init_from: what a new run takes from a checkpoint, what may change, and what is refused; and a folder of the
package's data set pg19, packed with the command that the deck's warning names.

usage: test_init_from.py STRATA
"""
import os
import re
import shlex
import shutil
import sys
import tempfile
import unittest

import h5py
import numpy

from program import DECK, Program, words, write

PROGRAM = Program(sys.argv[1])
strata = PROGRAM.run
FIXED = ("params.block.0={block_type: transformer, attn_head_dims: 16, attn_num_heads: 2, attn_use_rot_embs: true, "
         "pos_emb_type: fixed}")
SHORT = ("train.target_elements=16", "--quiet")
# A deck that says nothing of the model.
BARE = DECK[: DECK.index("params:")] + "params: {input_seq_len: 128}\n" + DECK[DECK.index("train:"):]
FOLDER = tempfile.TemporaryDirectory()


def setUpModule():
    os.chdir(FOLDER.name)
    write("text", words(4000, 1))
    write("deck.yaml", DECK)
    write("bare.yaml", BARE)
    strata("pack", "--output", "data.h5", "--train", "text", "--validation", "text")
    strata("train", "deck.yaml", *SHORT, "io.name_model=first")
    strata("train", "deck.yaml", *SHORT, "io.name_model=table", FIXED)


def tearDownModule():
    os.chdir("/")
    FOLDER.cleanup()


def arrays(path, group="parameters"):
    with h5py.File(path, "r") as file:
        return {name: array[()] for name, array in file[group].items()}


def start(name):
    return f"{name}/checkpoints/step_0000000000.h5"


class InitFrom(unittest.TestCase):
    def same(self, a, b):
        self.assertEqual(a.shape, b.shape)
        self.assertEqual(a.tobytes(), b.tobytes())

    def train(self, name, *changes, deck="deck.yaml", origin="first"):
        """Arrays of a run's first checkpoint and of its origin."""
        strata("train", deck, *SHORT, f"io.name_model={name}", f"train.init_from={origin}", *changes)
        return arrays(start(name)), arrays(f"{origin}/latest.h5")

    def refusal(self, *changes, deck="deck.yaml", origin="first"):
        return PROGRAM.refusal("train", deck, *SHORT, "io.name_model=refused", f"train.init_from={origin}", *changes)

    def test_weights_are_the_origins_and_moments_are_zero(self):
        for name, origin in (("of_folder", "first"), ("of_file", "first/latest.h5")):
            strata("train", "deck.yaml", *SHORT, f"io.name_model={name}", f"train.init_from={origin}")
            for tensor, array in arrays("first/latest.h5").items():
                self.same(arrays(start(name))[tensor], array)
            for group in ("optimizer/first_moment", "optimizer/second_moment"):
                self.assertFalse(any(array.any() for array in arrays(start(name), group).values()))
        # The package's key is the same thing.
        strata("train", "deck.yaml", *SHORT, "io.name_model=resumed", "resume.checkpoint_file=first/latest.h5")
        self.same(arrays("resumed/latest.h5")["to_logits.weight"], arrays("of_file/latest.h5")["to_logits.weight"])

    def test_params_come_from_the_checkpoint(self):
        now, before = self.train("bare", deck="bare.yaml")
        self.assertEqual(set(now), set(before))
        with h5py.File(start("bare")) as run, h5py.File("first/latest.h5") as origin:
            old, new = (file["config"][0].decode().split("train:")[0] for file in (origin, run))
        self.assertEqual(new, old.replace("input_seq_len: 256", "input_seq_len: 128"))
        # Keys that are absent do not fall back to their defaults; some of a block may be given.
        strata("train", "deck.yaml", *SHORT, "io.name_model=reference", "params.head=reference")
        self.train("bare_reference", deck="bare.yaml", origin="reference")
        with h5py.File(start("bare_reference")) as run:
            self.assertIn("head: reference", run["config"][0].decode())
        self.train("some", "params.block={attn_dropout: 0.1}", deck="bare.yaml", origin="table")
        message = PROGRAM.refusal("train", "bare.yaml", "train.init_from=gone.h5")
        self.assertIn("params.hidden_dims is missing", message)
        self.assertIn("gone.h5, which does not exist", message)

    def test_vocabulary_grows(self):
        strata("train", "deck.yaml", *SHORT, "io.name_model=new", "params.num_tokens=300", "train.seed=5")
        fresh = arrays(start("new"))
        for name, pad in (("kept_pad", 256), ("moved_pad", 299)):
            now, before = self.train(name, "params.num_tokens=300", f"params.pad_token_id={pad}", "train.seed=5")
            tables = ["token_embs_rev.0.weight", "token_embs_rev.1.0.weight", "to_logits.weight", "to_logits.bias"]
            for tensor in before:
                if tensor not in tables:
                    self.same(now[tensor], before[tensor])
            for tensor in tables:
                self.assertEqual(len(now[tensor]), 300)
                self.same(now[tensor][:257], before[tensor])
                free = slice(257, 299)
                self.same(now[tensor][free], fresh[tensor][free])
                self.assertTrue(now[tensor][free].any())
                if tensor.startswith("token"):
                    self.assertFalse(now[tensor][pad].any())
            strata("eval", "--checkpoint", name, "--data", "data.h5", "--split", "validation")
        self.assertIn("params.num_tokens is 250 where the checkpoint has 257; a vocabulary can grow, not shrink",
                      self.refusal("params.num_tokens=250", "params.pad_token_id=249"))
        self.assertIn("params.pad_token_id is 3 where the checkpoint has 256; the pad id can move to a new row only",
                      self.refusal("params.num_tokens=300", "params.pad_token_id=3"))

    def test_outer_length_changes_where_positions_allow(self):
        for length in (16, 4096):
            now, before = self.train(f"mamba{length}", f"params.seq_lens=[{length}, 4]")
            for tensor, array in before.items():
                self.same(now[tensor], array)
        rotary = FIXED.replace("fixed", "null")
        strata("train", "deck.yaml", *SHORT, "io.name_model=rotary", rotary)
        self.train("longer", rotary, "params.seq_lens=[128, 4]", "params.input_seq_len=512", origin="rotary")
        now, before = self.train("shorter", FIXED, "params.seq_lens=[16, 4]", "params.input_seq_len=64", origin="table")
        for tensor, array in before.items():
            self.same(now[tensor], array[:16] if tensor == "pos_embs.0.weight" else array)
        message = self.refusal(FIXED, "params.seq_lens=[65, 4]", origin="table")
        self.assertIn("params.seq_lens.0 is 65, but the position table of stage 1 in the checkpoint ends at 64", message)
        self.assertIn("only the outermost length", self.refusal("params.seq_lens=[32, 8]"))

    def test_contradictions_are_named_key_by_key(self):
        changes = {
            "params.num_layers=[2, 2]": "num_layers is [2, 2] where the checkpoint has [2, 1]",
            "params.head=reference": "head is reference where the checkpoint has complete",
            "params.pad_row_is_trained=true": "pad_row_is_trained is true",
            "params.num_tokens=256": "num_tokens is 256 where the checkpoint has 257",
            "params.pad_token_id=0": "pad_token_id is 0 where the checkpoint has 256",
            "params.block.0.pos_emb_type=rope": "block.0.pos_emb_type is rope where the checkpoint has null",
            "params.block.0.d_state=16": "block.0.d_state is 16 where the checkpoint has 8",
            "params.block.0.d_conv=3": "block.0.d_conv is 3", "params.block.0.expand=3": "block.0.expand is 3",
            "params.block.0.headdim=8": "block.0.headdim is 8",
            "params.block.1.attn_num_heads=3": "block.1.attn_num_heads is 3",
            "params.block.1.attn_head_dims=8": "block.1.attn_head_dims is 8",
            "params.block.1.attn_use_rot_embs=false": "block.1.attn_use_rot_embs is false",
            "params.block.1.ff_multiplier=4": "block.1.ff_multiplier is 4"}
        message = self.refusal(*changes)
        self.assertIn("the deck contradicts first/latest.h5, which train.init_from names: ", message)
        for clause in changes.values():
            self.assertIn("params." + clause, message)
        for change, clause in (("params.hidden_dims=[32, 32]", "hidden_dims is [32, 32] where the checkpoint has [32, 24]"),
                               (FIXED, "block.0.block_type is transformer where the checkpoint has mamba2")):
            self.assertIn("params." + clause, self.refusal(change))
        # Nothing is left of a run that was refused; dropout and budgets are the new run's own.
        self.assertFalse(os.path.exists("refused/latest.h5"))
        self.train("free", "params.block.1.ff_dropout=0.2", "params.block.0.dropout=0.1", "params.input_seq_len=200",
                   "params.train_checkpoint_chunks=[2]", "train.learning_rate=0.001")

    def test_a_run_that_has_begun_needs_its_origin_no_more(self):
        shutil.copy("first/latest.h5", "origin.h5")
        change = ("train.init_from=origin.h5", "io.name_model=begun", "--quiet")
        strata("train", "deck.yaml", *change, "train.target_elements=16")
        os.remove("origin.h5")
        os.remove("begun/DONE")
        strata("train", "begun/config.yaml", "--quiet")
        self.assertIn("origin.h5", PROGRAM.refusal("train", "begun/config.yaml", "io.name_model=again"))

    def test_models_of_other_programs_lead_to_convert(self):
        write("model.pth", b"PK\3\4 and more")
        write("model.safetensors", b"\x02\0\0\0\0\0\0\0{}")
        for name in ("model.pth", "model.safetensors", "missing.pth"):
            hint = f"strata convert --from {name} --output model.h5"
            for key in ("train.init_from", "resume.checkpoint_file"):
                message = PROGRAM.refusal("train", "deck.yaml", *SHORT, f"{key}={name}", "io.name_model=foreign")
                self.assertIn(hint, message)
            for command in (["eval", "--data", "data.h5"], ["generate", "--bytes", "1"]):
                self.assertIn(hint, PROGRAM.refusal(*command, "--checkpoint", name))


class Pg19(unittest.TestCase):
    def test_the_command_of_the_warning_packs_the_folder(self):
        for number, split in enumerate(("train", "validation", "test")):
            os.makedirs(f"books/{split}")
            for book in range(2):
                write(f"books/{split}/{book}.txt", words(1000, 10 * number + book))
        package = DECK.replace("dataset: data.h5", "dataset_id: pg19\n  dataset_dir: books")
        write("pg19.yaml", package)
        warnings = PROGRAM.output("info", "pg19.yaml", "--json")
        command = re.search(r"io\.dataset_id has no meaning here: .*`strata (pack [^`]*)`", warnings)[1]
        strata(*shlex.split(command.replace("DIR", "books")))
        with h5py.File("pg19.h5") as file:
            for split in ("train", "validation", "test"):
                with open(f"books/{split}/0.txt", "rb") as first, open(f"books/{split}/1.txt", "rb") as second:
                    wanted = first.read() + second.read()
                self.assertEqual(file[split]["bytes"][()].tobytes(), wanted)
                self.assertEqual(len(file[split]["document_offsets"]), 3)
        self.assertIn("strata pack", PROGRAM.refusal("train", "pg19.yaml", "--quiet"))
        strata("train", "pg19.yaml", "io.dataset=pg19.h5", "io.name_model=pg19", *SHORT)
        self.assertTrue(numpy.isfinite(list(arrays("pg19/latest.h5")["to_logits.bias"])).all())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
