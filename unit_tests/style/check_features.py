#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every row of doc/features.md names tests, and the sources have them.

A name is `Suite.Name` of a GoogleTest, `file.Class.test_name` of a Python test, or `parity_check FIXTURE` of a golden file.

usage: check_features.py SOURCE_FOLDER
"""
import ast
import os
import re
import sys


def known_tests(root):
    names = {"parity_check " + name[:-3] for name in os.listdir(os.path.join(root, "unit_tests/golden")) if name.endswith(".h5")}
    for folder, _, files in os.walk(os.path.join(root, "unit_tests")):
        for name in files:
            path = os.path.join(folder, name)
            if name.endswith(".cpp"):
                with open(path, encoding="utf-8") as file:
                    text = file.read()
                names.update(".".join(pair) for pair in re.findall(r"^(?:TYPED_)?TEST(?:_[FP])?\(\s*(\w+),\s*(\w+)\)", text, re.M))
            elif name.endswith(".py"):
                with open(path, encoding="utf-8") as file:
                    tree = ast.parse(file.read())
                for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
                    names.update(f"{name[:-3]}.{cls.name}.{node.name}" for node in cls.body
                                 if isinstance(node, ast.FunctionDef) and node.name.startswith("test"))
    return names


def problems(text, known):
    """One line per row without tests, and per test that is not known."""
    found, rows = [], 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("|") or re.fullmatch(r"[|\s:-]+", line):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if cells[-1] == "test":
            continue  # a table's head
        rows += 1
        tests = re.findall(r"`([^`]+)`", cells[-1])
        if not tests:
            found.append(f"line {number}: {cells[0]}: no test is named")
        found += [f"line {number}: {cells[0]}: there is no test {name}" for name in tests if name not in known]
    return found if rows else ["there is no row"]


def main(root):
    with open(os.path.join(root, "doc/features.md"), encoding="utf-8") as page:
        found = problems(page.read(), known_tests(root))
    for problem in found:
        print("doc/features.md:", problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
