#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""strata info on the decks of this repository: what a deck takes, and that its predictions see what they should.

usage: test_info.py STRATA MPIEXEC NUMPROC_FLAG [MPIEXEC_FLAG...]
"""
import glob
import json
import os
import sys
import unittest

from program import Program

PROGRAM = Program(*sys.argv[1:])
INPUTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../inputs")


class Decks(unittest.TestCase):
    def test_every_byte_sees_its_past_and_nothing_else(self):
        decks = sorted(glob.glob(os.path.join(INPUTS, "*.yaml")))
        self.assertGreater(len(decks), 5)
        for deck in decks:
            seen = json.loads(PROGRAM.output("info", "--dependencies", deck, "--json"))
            self.assertEqual(seen["dependencies_on_later_bytes"], 0)
            if seen["head"] == "complete":
                self.assertEqual(seen["bytes_that_see_all_earlier_bytes"], seen["bytes"])

    def test_a_deck_on_two_ranks_is_told_once(self):
        deck = os.path.join(INPUTS, "quickstart.yaml")
        one, two = (json.loads(PROGRAM.output("info", deck, "--json", ranks=ranks)) for ranks in (1, 2))
        self.assertEqual(one["stages"], two["stages"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
