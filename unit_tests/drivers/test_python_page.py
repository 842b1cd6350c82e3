#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""doc/python.md: its scripts run as they stand on files of the program, and its tables name every object with its shape.

usage: test_python_page.py STRATA SOURCE_FOLDER
"""
import contextlib
import io
import os
import re
import sys
import tempfile
import unittest

import h5py

from program import DECK, Program, read, words, write

PROGRAM = Program(sys.argv[1])
PAGE = read(os.path.join(sys.argv[2], "doc/python.md")).decode()
SCRIPTS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
TRANSFORMER = "{block_type: transformer, attn_head_dims: 12, attn_num_heads: 3, attn_use_rot_embs: true, ff_multiplier: 3%s}"
MAMBA1 = "{block_type: mamba1, d_state: 5, d_conv: 3, expand: 2}"
MAMBA2 = "{block_type: mamba2, d_state: 8, d_conv: 4, expand: 2, headdim: 16}"
FOLDER = tempfile.TemporaryDirectory()


def setUpModule():
    os.chdir(FOLDER.name)
    write("text", words(4000, 1))
    write("deck.yaml", DECK)
    PROGRAM.run("pack", "--output", "books.h5", "--split", "0.8,0.1,0.1", "--split-within", "text")


def tearDownModule():
    os.chdir("/")
    FOLDER.cleanup()


def train(name, *changes):
    PROGRAM.run("train", "deck.yaml", "io.dataset=books.h5", "io.output_dir=runs", f"io.name_model={name}",
                "train.target_elements=8", "--quiet", *changes)
    return f"runs/{name}/latest.h5"


def run(script):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(script, "doc/python.md", "exec"), {})  # the page's own text
    return output.getvalue()


def rows(heading):
    """Cells of the first table below a heading."""
    table = re.search(r"^\|.*?(?=\n\n|\Z)", PAGE[PAGE.index(heading):], re.M | re.S)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


PARAMETERS = [(cells[0].strip("`| "), cells[1]) for cells in rows("### Names and shapes of parameters")]


def shapes(name, sizes):
    """Of all rows of the table that the parameter's name fits."""
    found = set()
    for pattern, shape in PARAMETERS:
        groups = {"S": r"(?P<S>\d+)", "K": r"(?P<K>[1-9]\d*)", "L": r"(?P<L>\d+)"}
        parts = [groups.get(part, re.escape(part)) for part in pattern.split(".")]
        match = re.fullmatch(r"\.".join(parts), name)
        if not match:
            continue
        place = match.groupdict()
        stage = len(sizes) - 1
        if place.get("S"):
            stage = int(place["S"])
        if place.get("K"):
            stage = len(sizes) - 1 - int(place["K"])
        try:
            value = eval(shape, {}, {**sizes[stage], "L": int(place.get("L") or 0)})  # the page's own text
        except NameError:
            continue  # a size of another kind of block
        found.add(value if isinstance(value, tuple) else (value,))
    return found


class Page(unittest.TestCase):
    def test_scripts(self):
        self.assertEqual(len(SCRIPTS), 2)
        for script in SCRIPTS:
            self.assertLessEqual(len([line for line in script.splitlines() if line]), 10)
        checkpoint = train("quickstart")
        output = run(SCRIPTS[0])
        with h5py.File(checkpoint) as file:
            self.assertIn("parameters after 1 steps", output)
            for name, array in file["parameters"].items():
                self.assertIn(f"{name} float32 {array.shape}\n", output)
        output = run(SCRIPTS[1])
        text = read("text")
        for split, size in (("train", len(text) * 8 // 10), ("validation", None), ("test", None)):
            self.assertRegex(output, rf"(?m)^{split} \({size or '[0-9]+'},\) 1 documents$")
        self.assertIn(repr(text[:60]), output)

    def test_every_parameter_is_listed_with_its_shape(self):
        seen = set()
        fixed = TRANSFORMER % ", pos_emb_type: fixed"
        for number, (inner, outer) in enumerate(((MAMBA2, fixed), (fixed, MAMBA1), (MAMBA1, MAMBA2))):
            blocks = [outer, TRANSFORMER % "", inner]
            dims, lens = [32, 24, 40], [16, 4, 2]
            path = train(f"run{number}", f"params.hidden_dims={dims}", f"params.seq_lens={lens}", "params.num_layers=[1, 2, 1]",
                         "params.input_seq_len=128", "params.patch_encoder=convolution", f"params.block=[{', '.join(blocks)}]")
            sizes = []
            for s, (width, length, block) in enumerate(zip(dims, lens, blocks)):
                size = {"V": 257, "D": width, "P": length, "Z": dims[-1], "R": 1}
                for below in lens[s + 1:]:
                    size["R"] *= below
                if s + 1 < len(dims):
                    size.update(Q=lens[s + 1], B=dims[s + 1])
                if block.startswith(MAMBA2[:20]):
                    size.update(E=2 * width, N=8, W=4, H=2 * width // 16)
                elif block == MAMBA1:
                    size.update(E=2 * width, N=5, W=3, T=-(-width // 16))
                else:
                    size.update(A=36, M=3 * width)
                sizes.append(size)
            with h5py.File(path) as file:
                for name, array in file["parameters"].items():
                    self.assertIn(array.shape, shapes(name, sizes), name)
                    self.assertEqual(file["optimizer/first_moment"][name].shape, array.shape)
                    seen.add(re.sub(r"\d+", "0", name))
                self.check_objects(file)
        listed = {re.sub(r"\d+", "0", re.sub(r"\b[SKL]\b", "0", pattern)) for pattern, _ in PARAMETERS}
        self.assertEqual(seen, listed)

    def check_objects(self, file):
        table = PAGE[PAGE.index("| object |"): PAGE.index("### Names and shapes")]
        for name in file:
            self.assertRegex(table, rf"`{name}[`/]")
        for group in ("progress", "provenance"):
            for key in file[group].attrs:
                self.assertIn(f"`{key}`", table)

    def test_every_object_of_a_dataset_is_listed(self):
        table = PAGE[PAGE.index("## A dataset"):]
        with h5py.File("books.h5") as file:
            for split, group in file.items():
                self.assertIn(f"`{split}`", table)
                for name, array in group.items():
                    self.assertIn(f"`<split>/{name}` | {array.dtype} |", table)
            for key in file.attrs:
                self.assertIn(f"`{key}`", table)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
