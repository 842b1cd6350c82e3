#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The include check must find violations that are planted, and nothing in a tree that is in order."""
import pathlib
import tempfile
import unittest

from check_includes import MAX_LINES, check_tree

HEAD = "// SPDX-License-Identifier: Apache-2.0\n"
ORDERLY = {
    "kernels/common/types.hpp": "#pragma once\n#include <Kokkos_Core.hpp>\n#include <cstdint>\n",
    "kernels/linear.cpp": '#include <KokkosBlas3_gemm.hpp>\n#include "kernels/linear.hpp"\n',
    "kernels/linear.hpp": '#pragma once\n#include "kernels/common/types.hpp"\n',
    "src/core/error.hpp": "#pragma once\n#include <string>\n",
    "src/core/arena.hpp": '#pragma once\n#include "kernels/common/types.hpp"\n',
    "src/io/hdf5.hpp": '#pragma once\n#include <hdf5.h>\n#include <mpi.h>\n#include "core/error.hpp"\n',
    "src/model/block.hpp": '#pragma once\n#include "kernels/linear.hpp"\n',
    "src/train/trainer.hpp": '#pragma once\n#include "model/block.hpp"\n#include "io/hdf5.hpp"\n',
    "drivers/main.cpp": '#include <CLI/CLI.hpp>\n#include "train/trainer.hpp"\n#include "pack.hpp"\n',
    "drivers/pack.hpp": "#pragma once\n",
}
# file, its text without the SPDX line, a part of the complaint
PLANTED = [
    ("kernels/bad.cpp", '#include "core/error.hpp"\n', "kernels must not include"),
    ("kernels/bad.cpp", "#include <mpi.h>\n", "<mpi.h>"),
    ("kernels/bad.cpp", "#include <omp.h>\n", "kernels must not include <omp.h>"),
    ("kernels/bad.cpp", "#include <KokkosBlas1_axpby.hpp>\n", "KokkosBlas"),
    ("src/core/bad.cpp", '#include "kernels/linear.hpp"\n', "core must not include"),
    ("src/core/bad.cpp", '#include "io/hdf5.hpp"\n', "core must not include"),
    ("src/core/bad.cpp", "#include <mpi.h>\n", "<mpi.h>"),
    ("src/io/bad.cpp", '#include "model/block.hpp"\n', "io must not include"),
    ("src/data/bad.cpp", '#  include "model/block.hpp"\n', "data must not include"),
    ("src/model/bad.cpp", '#include "train/trainer.hpp"\n', "model must not include"),
    ("src/model/bad.cpp", "#include <hdf5.h>\n", "<hdf5.h>"),
    ("src/generate/bad.cpp", '#include "train/trainer.hpp"\n', "generate must not include"),
    ("src/train/bad.cpp", '#include "drivers/pack.hpp"\n', "train must not include"),
    ("src/train/bad.cpp", "#include <CLI/CLI.hpp>\n", "<CLI/CLI.hpp>"),
    ("unit_tests/bad.cpp", '#include "drivers/pack.hpp"\n', "unit_tests must not include"),
    ("src/train/bad.cpp", '#include "train/missing.hpp"\n', "does not exist"),
    ("src/other/bad.cpp", "", "not in the table"),
    ("src/core/bad.hpp", "", "#pragma once"),
    ("src/core/bad.cpp", "\n" * MAX_LINES, "more than"),
]


class IncludeCheck(unittest.TestCase):
    def check(self, extra):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**ORDERLY, **extra}.items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return check_tree(folder)

    def setUp(self):
        for name, text in ORDERLY.items():
            if not text.startswith(HEAD):
                ORDERLY[name] = HEAD + text

    def test_a_tree_in_order(self):
        self.assertEqual(self.check({}), ([], len(ORDERLY)))

    def test_each_planted_violation_is_the_only_one_found(self):
        for name, text, complaint in PLANTED:
            violations, _ = self.check({name: HEAD + text})
            self.assertEqual(len(violations), 1, (name, text, violations))
            self.assertIn(complaint, violations[0])
            self.assertTrue(violations[0].startswith(name + ":"), violations[0])

    def test_a_missing_licence_line(self):
        violations, _ = self.check({"src/core/bad.cpp": "int x;\n"})
        self.assertEqual(len(violations), 1)
        self.assertIn("SPDX", violations[0])


if __name__ == "__main__":
    unittest.main(verbosity=2)
