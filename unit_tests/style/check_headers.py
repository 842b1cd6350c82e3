#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles headers alone, included twice, with the flags of a source file of their folder, without precompiled headers.
Left out are those that include Kokkos's headers and come first in a source file: the build compiles them behind nothing
but these, so they only need a guard.

Usage: check_headers.py SOURCE_DIR BUILD_DIR     BUILD_DIR holds compile_commands.json
"""
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

FOLDERS = ("kernels", "src", "drivers")


def flags_by_folder(build):
    """Folder of a source file -> the command that compiles it, without its input and output."""
    result = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        words = shlex.split(entry["command"])
        kept, skip = [], False
        for word in words:
            if skip:
                skip = False
            elif word in ("-o", "-c", "-MF", "-MT", "-MQ", "-include"):  # -include: a precompiled header
                skip = True
            elif word not in ("-MD", "-MMD", "-Winvalid-pch"):
                kept.append(word)
        result.setdefault(pathlib.Path(entry["file"]).parent, kept)
    return result


def included_first(root):
    """Names of the headers that a source file includes before anything else."""
    names = set()
    for folder in FOLDERS:
        for source in (root / folder).rglob("*.cpp"):
            first = re.search(r"^#include (.*)", source.read_text(), re.MULTILINE)
            if first and first[1].startswith('"'):
                names.add(first[1].strip('"'))
    return names


def include_kokkos(root):
    """Names of the headers that include Kokkos's, by others or themselves."""
    includes = {}
    for folder in FOLDERS:
        for header in (root / folder).rglob("*.hpp"):
            includes[name_of(header, root)] = re.findall(r'^#include ["<]([^">]*)', header.read_text(), re.MULTILINE)
    result, size = {"Kokkos_Core.hpp"}, 0
    while len(result) > size:
        size = len(result)
        result |= {name for name, names in includes.items() if not result.isdisjoint(names)}
    return result


def name_of(header, root):
    return header.relative_to(root / "src" if (root / "src") in header.parents else root).as_posix()


def compile_alone(header, flags, root):
    """The compiler's complaints about a header."""
    name = name_of(header, root)
    text = f'#include "{name}"\n#include "{name}"\n'
    command = [*flags, f"-I{root}", "-Werror", "-fsyntax-only", "-x", "c++", "-"]
    result = subprocess.run(command, input=text, capture_output=True, text=True)
    if result.returncode == 0:
        return ""
    return f"{header.relative_to(root)} does not compile alone:\n{result.stderr[:2000]}"


def main():
    root, build = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    flags = flags_by_folder(build)
    proved = included_first(root) & include_kokkos(root)
    jobs, unguarded, others = [], [], 0
    for folder in FOLDERS:
        for header in sorted((root / folder).rglob("*.hpp")):
            if name_of(header, root) in proved:
                others += 1
                if "\n#pragma once\n" not in header.read_text():
                    unguarded.append(f"{header.relative_to(root)} lacks #pragma once")
                continue
            place = header.parent
            while place not in flags and place != root:
                place = place.parent
            if place == root:
                sys.exit(f"no source file tells how to compile {header}")
            jobs.append((header, flags[place]))
    if not jobs:
        sys.exit("no header was found")
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        errors = unguarded + [e for e in pool.map(lambda job: compile_alone(*job, root), jobs) if e]
    print(*errors, sep="\n")
    if errors:
        sys.exit(f"{len(errors)} headers cannot be included alone and twice")
    print(f"{len(jobs)} headers compile alone and twice, {others} come first in a source file")


if __name__ == "__main__":
    main()
