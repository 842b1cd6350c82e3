#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks who includes whom, and the outer form of each source file.

Usage: check_includes.py SOURCE_DIR

The table is that of doc/architecture.md: a folder may include itself and the folders named here. Some libraries may be
named in a few places only, so that the rest of the program does not depend on them.
"""
import pathlib
import re
import sys

EVERYTHING = ["kernels", "core", "io", "parallel", "data", "model", "generate", "train"]
ALLOWED = {
    "kernels": [],
    "core": ["kernels/common"],
    "io": ["core", "parallel", "kernels/common"],
    "parallel": ["core", "kernels/common"],
    "data": ["io", "parallel", "core", "kernels/common"],
    "model": ["kernels", "core", "parallel"],
    "generate": ["model", "io", "parallel", "core", "kernels"],
    "train": ["model", "data", "io", "parallel", "core", "kernels"],
    "drivers": EVERYTHING,
    "perf": EVERYTHING,
    "unit_tests": EVERYTHING,
}

# Header of a library -> where it may be included.
RESTRICTED = [
    (r"mpi\.h", r"src/parallel/|src/core/runtime|src/io/|unit_tests/"),
    (r"hdf5.*\.h|H5.*\.h", r"src/io/|unit_tests/"),
    (r"KokkosBlas.*|KokkosKernels.*|KokkosBatched.*", r"kernels/linear\.cpp|perf/|unit_tests/"),
    (r"Random123/.*", r"kernels/|src/"),
    (r"CLI/.*", r"drivers/"),
    (r"gtest/.*|gmock/.*", r"unit_tests/"),
    (r"benchmark/.*", r"perf/"),
]

# What kernels/ may include besides itself and the C++ standard library, whose headers have no extension or slash.
KERNEL_LIBRARIES = r"Kokkos_.*\.hpp|KokkosBlas.*\.hpp|Random123/.*"

GENERATED = {"commit.hpp"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
MAX_LINES = 500


def module_of(path):
    """Folder that the table speaks of: kernels, core, ..., drivers, perf, unit_tests."""
    parts = path.split("/")
    return parts[1] if parts[0] == "src" else parts[0]


def resolve(root, path, name):
    """Path of a quoted include below the root, or None."""
    for base in ("", "src/", str(pathlib.PurePosixPath(path).parent) + "/"):
        if (root / (base + name)).is_file():
            return base + name
    return None


def check_quoted(root, path, name):
    if name in GENERATED:
        return None
    target = resolve(root, path, name)
    if target is None:
        return f'"{name}" does not exist'
    module, included = module_of(path), module_of(target)
    if module == included:
        return None
    for allowed in ALLOWED[module]:
        if included == allowed or target.startswith(allowed + "/"):
            return None
    return f'{module} must not include "{name}"'


def check_library(path, name):
    for pattern, places in RESTRICTED:
        if re.fullmatch(pattern, name) and not re.match(places, path):
            return f"<{name}> may only be included in {places}"
    is_standard = re.fullmatch(r"[a-z_0-9]+", name)
    if path.startswith("kernels/") and not is_standard and not re.fullmatch(KERNEL_LIBRARIES, name):
        return f"kernels must not include <{name}>"
    return None


def check_form(path, lines):
    if not lines or lines[0] != "// SPDX-License-Identifier: Apache-2.0":
        yield 1, "the first line is not the SPDX line of the licence"
    if path.endswith(".hpp") and "#pragma once" not in lines[:3]:
        yield 1, "a header starts with #pragma once"
    if len(lines) > MAX_LINES:
        yield len(lines), f"more than {MAX_LINES} lines"


def check_tree(root):
    """All violations below `root`, as lines `path:line: text`, and the number of files seen."""
    root = pathlib.Path(root)
    violations, files = [], 0
    for folder in ("kernels", "src", "drivers", "perf", "unit_tests"):
        for file in sorted((root / folder).rglob("*.[ch]pp")):
            files += 1
            path = file.relative_to(root).as_posix()
            lines = file.read_text(encoding="utf-8").splitlines()
            found = list(check_form(path, lines))
            if module_of(path) not in ALLOWED:
                found.append((1, f"the folder {module_of(path)} is not in the table"))
                lines = []
            for number, line in enumerate(lines, 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                quote, name = match.groups()
                error = check_quoted(root, path, name) if quote == '"' else check_library(path, name)
                if error:
                    found.append((number, error))
            violations += [f"{path}:{number}: {text}" for number, text in found]
    return violations, files


def main():
    violations, files = check_tree(sys.argv[1])
    print(*violations, sep="\n")
    if files == 0:
        sys.exit("no source file was found")
    if violations:
        sys.exit(f"{len(violations)} violations in {files} files")
    print(f"{files} files are in order")


if __name__ == "__main__":
    main()
