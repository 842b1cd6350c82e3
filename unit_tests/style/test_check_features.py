#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check_features.py finds what it is there for."""
import os
import unittest

import check_features

HEAD = "| feature | where | test |\n| --- | --- | --- |\n"


class Check(unittest.TestCase):
    def test_finds_wrong_rows(self):
        known = {"Suite.Name", "parity_check mblm_tt"}
        self.assertEqual(check_features.problems(HEAD + "| a | b | `Suite.Name`, `parity_check mblm_tt` |\n", known), [])
        for row in ("| a | b | none |\n", "| a | `Suite.Name` | |\n", "| a | b | `Suite.Name`, `Suite.Other` |\n"):
            self.assertEqual(len(check_features.problems(HEAD + row, known)), 1, row)
        self.assertEqual(len(check_features.problems(HEAD, known)), 1)

    def test_knows_tests_of_every_kind(self):
        known = check_features.known_tests(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
        for name in ("Deck.Booleans", "Convert.EveryGoldenModelGivesItsLogits", "test_convert.Convert.test_there_and_back",
                     "parity_check mblm_tt"):
            self.assertIn(name, known)


if __name__ == "__main__":
    unittest.main()
