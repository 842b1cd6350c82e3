#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""strata compress, decompress and eval --score with a small trained model: files come back byte by byte, sizes are those
that eval predicts, and whatever is damaged is refused.

usage: test_compress.py STRATA MPIEXEC NUMPROC_FLAG [MPIEXEC_FLAG...]
"""
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from program import DECK, Program, read, words, write

PROGRAM = Program(*sys.argv[1:])


def dirty_files():
    """Contents that other programs stumble over, and sizes around windows of 256 bytes."""
    generator = random.Random(2)
    return {
        "empty": b"",
        "one byte": b"\xff",
        "nul": b"\0",
        "every.bin": bytes(range(256)),
        "window": words(100, 3).encode()[:256],
        "window and one": words(100, 3).encode()[:257],
        "noise.bin": generator.randbytes(3000),
        "nuls": b"\0" * 4096,
        "ff": b"\xff" * 2048,
        "crlf \u00fcml\u00e4ut & .txt": b"a\r\nb\rc\n",
        "broken utf8": b"\xc3\x28\xa0\xff\xfe\xe2\x82a\xf0\x9f\x92\0\xed\xa0\x80" * 20,
        "long line": b"ab" * 10000,
    }


def strata(*arguments, status=0, **how):
    """Standard output of a run that ends with `status`; of a failed one, the program's line on standard error."""
    if status != 0:
        return PROGRAM.refusal(*arguments, status=status, **how)
    return PROGRAM.output(*arguments, **how)


class Programs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        os.chdir(cls.folder.name)
        write("train.txt", words(8000, 1).encode())
        write("book.txt", words(9000, 2).encode())
        write("deck.yaml", DECK)
        strata("pack", "--output", "data.h5", "--train", "train.txt", "--validation", "book.txt")
        strata("train", "deck.yaml", "--quiet", threads=2)
        strata("train", "deck.yaml", "--quiet", "io.name_model=other", "train.target_elements=16")

    @classmethod
    def tearDownClass(cls):
        os.chdir("/")
        cls.folder.cleanup()

    def compress(self, name, output, *more, **how):
        strata("compress", "--checkpoint", "run", name, "--output", output, *more, **how)
        return read(output)

    def decompress(self, name, output, *more, **how):
        strata("decompress", "--checkpoint", "run", name, "--output", output, *more, **how)
        return read(output)

    def score(self, *names, **how):
        return json.loads(strata("eval", "--checkpoint", "run", "--json", "--score", *names, **how))

    def evaluation(self, name):
        strata("pack", "--force", "--output", "split.h5", "--test", name)
        return json.loads(strata("eval", "--checkpoint", "run", "--data", "split.h5", "--json"))

    def test_round_trips(self):
        for name, content in dirty_files().items():
            with self.subTest(name):
                write(name, content)
                coded = self.compress(name, "coded")
                self.assertEqual(self.decompress("coded", "back"), content)
                self.assertLessEqual(len(coded), 40 + 4.1 * len(content) + 64)
                if content:
                    figure = self.evaluation(name)
                    nats = figure["loss"] * figure["bytes"]
                    self.assertEqual(figure["bytes"], len(content))
                    predicted = nats / math.log(2) / 8
                    self.assertLessEqual(abs(len(coded) - predicted), 0.005 * predicted + 64)

    def test_book_has_the_size_that_eval_predicts(self):
        content = read("book.txt")
        figure = self.evaluation("book.txt")
        self.assertLess(figure["bits_per_byte"], 3, "the model has learnt nothing")
        coded = self.compress("book.txt", "book.strata")
        predicted = figure["bits_per_byte"] * len(content) / 8
        self.assertLessEqual(abs(len(coded) - predicted), 0.005 * predicted + 64)
        self.assertEqual(self.decompress("book.strata", "back"), content)

    def test_the_file_is_the_same_whoever_makes_it(self):
        content = read("book.txt")[:30000]
        write("part", content)
        coded = self.compress("part", "coded", "--batch", "1")
        for batch, threads, ranks in ((8, 1, 1), (8, 2, 1), (4, 1, 2)):
            again = self.compress("part", "again", "--batch", str(batch), threads=threads, ranks=ranks)
            self.assertEqual(again, coded, (batch, threads, ranks))
            back = self.decompress("coded", "back", "--batch", str(batch), threads=threads, ranks=ranks)
            self.assertEqual(back, content, (batch, threads, ranks))

    def test_windows_and_default_names(self):
        write("name.txt", words(300, 5).encode())
        output = strata("compress", "--checkpoint", "run", "name.txt", "--window", "100")
        size = os.path.getsize("name.txt.strata")
        self.assertRegex(output, rf"^name.txt: \d+ bytes in, {size} bytes out, [\d.]+ bits per byte, \d+ bytes/s\n$")
        self.assertIn("exists already", strata("compress", "--checkpoint", "run", "name.txt", status=1))
        self.assertIn("exists already", strata("decompress", "--checkpoint", "run", "name.txt.strata", status=1))
        os.remove("name.txt")
        strata("decompress", "--checkpoint", "run", "name.txt.strata")
        self.assertEqual(read("name.txt"), words(300, 5).encode())
        strata("compress", "--checkpoint", "run", "name.txt", "--force")
        self.assertNotEqual(os.path.getsize("name.txt.strata"), size)

    def test_damage_is_found(self):
        content = words(60, 6).encode()
        write("small", content)
        coded = self.compress("small", "small.strata")
        write("kept", b"precious")
        for place in range(0, len(coded), 7):
            broken = bytearray(coded)
            broken[place] ^= 1 << (place % 8)
            write("broken.strata", bytes(broken))
            message = strata("decompress", "--checkpoint", "run", "broken.strata", "--output", "kept", status=1)
            self.assertIn("broken.strata ", message)
        for size in (0, 5, 20, 40, len(coded) - 1):
            write("broken.strata", coded[:size])
            strata("decompress", "--checkpoint", "run", "broken.strata", "--output", "kept", status=1)
        self.assertEqual(read("kept"), b"precious")
        self.assertFalse([name for name in os.listdir() if name.endswith(".partial")])

    def test_refusals(self):
        write("text", words(60, 7).encode())
        self.compress("text", "text.strata")
        for arguments, message in (
                (("decompress", "--checkpoint", "other", "text.strata", "--output", "x"), "was compressed by another model"),
                (("decompress", "--checkpoint", "run", "text", "--output", "x"), "is not a file that strata compress wrote"),
                (("decompress", "--checkpoint", "run", "missing.strata"), "cannot read missing.strata"),
                (("decompress", "--checkpoint", "run", "text"), "does not end in .strata"),
                (("compress", "--checkpoint", "run", "text", "--output", "text"), "text is the file to read"),
                (("compress", "--checkpoint", "run", "missing"), "cannot read missing"),
                (("compress", "--checkpoint", "run", "."), "is a folder"),
                (("compress", "--checkpoint", "run", "text", "--output", "no/x"), "no/x"),
                (("eval", "--checkpoint", "run"), "--data DATASET, or --score FILE"),
                (("eval", "--checkpoint", "run", "--score", "text", "--data", "data.h5"), "--data"),
                (("eval", "--checkpoint", "run", "--score", "text", "--stride", "5"), "--stride"),
                (("eval", "--checkpoint", "run", "--score", "missing"), "cannot read missing")):
            self.assertIn(message, strata(*arguments, status=1))
        self.assertFalse(os.path.exists("x"))
        self.assertIn("another model", strata("decompress", "--checkpoint", "other", "text.strata", "-o", "x", status=1, ranks=2))

    def test_an_interrupt_leaves_nothing(self):
        write("long", words(400000, 8).encode())
        process = subprocess.Popen([PROGRAM.path, "compress", "--checkpoint", "run", "long", "--batch", "1"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not [name for name in os.listdir() if name.startswith("long.strata")]:
            self.assertIsNone(process.poll(), "it never began")
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1].decode()
        self.assertEqual(process.returncode, 75, errors)
        self.assertIn("nothing was written", errors)
        self.assertFalse([name for name in os.listdir() if name.startswith("long.strata")])

    def test_scores_are_those_of_eval(self):
        write("a.txt", words(700, 9).encode())
        write("b.bin", random.Random(10).randbytes(1111))
        write("empty", b"")
        result = self.score("a.txt", "b.bin", "empty")
        self.assertEqual([entry["file"] for entry in result["files"]], ["a.txt", "b.bin", "empty"])
        self.assertEqual(result["window"], 256)
        for entry in result["files"][:2]:
            figure = self.evaluation(entry["file"])
            self.assertEqual(entry["bytes"], figure["bytes"])
            self.assertAlmostEqual(entry["bits_per_byte"], figure["bits_per_byte"], delta=2e-5)
            self.assertEqual(entry["log_probability"], -entry["nats"])
        self.assertEqual((result["files"][2]["bytes"], result["files"][2]["bits_per_byte"]), (0, None))
        self.assertAlmostEqual(result["nats"], sum(entry["nats"] for entry in result["files"]), delta=1e-9)
        for how in ({"threads": 2}, {"ranks": 2}):
            again = self.score("a.txt", "b.bin", "empty", **how)
            self.assertEqual((again["files"], again["nats"]), (result["files"], result["nats"]), how)
        text = strata("eval", "--checkpoint", "run", "--score", "a.txt", "b.bin", "--batch", "2")
        self.assertEqual(len(re.findall(r": [\d.]+ bits per byte over \d+ bytes, log-probability -[\d.]+ nats", text)), 3)
        self.assertIn(f"total: {result['bits_per_byte']:.6f} bits per byte over {result['bytes']} bytes", text)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
