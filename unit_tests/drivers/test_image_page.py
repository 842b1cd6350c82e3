#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""doc/user_guide.md on images: its commands and its script, as they stand, give back the pixels that went in.

usage: test_image_page.py STRATA SOURCE_FOLDER
"""
import os
import re
import shlex
import sys
import unittest

import h5py
import numpy

from program import DECK, InFolder, Program, read, write

PROGRAM = Program(sys.argv[1])
GUIDE = read(os.path.join(sys.argv[2], "doc/user_guide.md")).decode()
PAGE = re.search(r"^### Images\n(.*?)^##", GUIDE, re.M | re.S)[1]
PACK = re.findall(r"^    strata (pack .*)$", PAGE, re.M)
GENERATE = re.search(r"`strata (generate .*?)`", PAGE, re.S)[1]
SCRIPT, = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


def picture(seed, height, width):
    """Of pixels that all differ from their neighbours, and its file."""
    image = numpy.random.default_rng(seed).integers(0, 256, (height, width, 3), numpy.uint8)
    return image, b"P6\n%d %d\n255\n" % (width, height) + image.tobytes()


def documents(path, split):
    with h5py.File(path) as file:
        offsets, data = file[f"{split}/document_offsets"][()], file[f"{split}/bytes"][()]
    return [data[begin:end] for begin, end in zip(offsets, offsets[1:])]


class ImagePage(InFolder):
    def run_script(self):
        names = {}
        exec(compile(SCRIPT, "doc/user_guide.md", "exec"), names)  # the page's own text
        return names["pixels"]

    def test_script_gives_the_pixels_back(self):
        os.mkdir("photos")
        originals = []
        for number in range(10):
            image, content = picture(number, 32, 32)
            originals.append(image.tobytes())
            write(f"photos/{number}.ppm", content)
        self.assertEqual(len(PACK), 2)
        for command in PACK:
            PROGRAM.run(*shlex.split(command))
        write("deck.yaml", DECK)
        PROGRAM.run("train", "deck.yaml", "io.dataset=blocks.h5", "io.output_dir=runs", "io.name_model=blocks",
                    "train.target_elements=8", "--quiet")
        PROGRAM.run(*shlex.split(GENERATE))
        pixels = self.run_script()

        for path, block in ("photos.h5", None), ("blocks.h5", 8):
            found = [pixels(document, 32, 32, block).tobytes()
                     for split in ("train", "validation") for document in documents(path, split)]
            self.assertEqual(sorted(found), sorted(originals), path)
        self.assertEqual(read("first.ppm"), b"P6 32 32 255\n" + documents("photos.h5", "train")[0].tobytes())
        # What the model made is what packing its image gives.
        PROGRAM.run("pack", "--output", "again.h5", "--train", "made.ppm", "--images", "patch:8")
        self.assertEqual(documents("again.h5", "train")[0].tobytes(), read("made"))

    def test_both_orders_of_many_sizes(self):
        names = {}
        exec(compile(SCRIPT[: SCRIPT.index("with h5py")], "doc/user_guide.md", "exec"), names)  # the page's own text
        for order, block, height, width in (("raster", None, 5, 7), ("patch:1", 1, 6, 3), ("patch:4", 4, 36, 60),
                                            ("patch:12", 12, 24, 12)):
            image, content = picture(1, height, width)
            write("image.ppm", content)
            PROGRAM.run("pack", "--output", "image.h5", "--train", "image.ppm", "--images", order, "--force")
            document, = documents("image.h5", "train")
            if order == "patch:4":
                self.assertEqual(document[:48].tobytes(), image[:4, :4].tobytes())
                self.assertNotEqual(document.tobytes(), image.tobytes())
            self.assertTrue(numpy.array_equal(names["pixels"](document, height, width, block), image), order)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
