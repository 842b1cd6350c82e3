#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs clang-tidy with the checks of .clang-tidy over our sources; any finding is an error. Its version is the newest that
# was tried here: unlike that of Debian it passes over system headers, which takes a third of the time. It is installed
# by pip into build/lint when it is missing. Sources are read eight at a time where a module can be a unity build, which
# takes a quarter of the time; files named on the command line are read by themselves.
#
#   unit_tests/style/run_clang_tidy.sh [FILE...]     default: all of kernels/, src/ and drivers/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD

version=23.1.4
lint=$root/build/lint
if ! "$lint/bin/clang-tidy" --version 2>/dev/null | grep -q "version $version"; then
  { python3 -m venv "$lint" && "$lint/bin/pip" -q install "clang-tidy==$version"; } ||
    { echo "run_clang_tidy.sh: clang-tidy $version cannot be installed into $lint" >&2; exit 1; }
fi
# Kokkos includes <omp.h>, of which there is only g++'s here.
openmp=$(dirname "$(g++ -print-file-name=include/omp.h)")

unity=$([ "$#" -eq 0 ] && echo ON || echo OFF)
database=$lint/unity_$unity
{ cmake -S . -B "$database" -G Ninja -DCMAKE_UNITY_BUILD="$unity" -DSTRATA_ENABLE_TESTS=OFF -DSTRATA_ENABLE_PERF=OFF &&
  cmake --build "$database" --target strata_commit; } >"$lint/configure.log" 2>&1 ||
  { tail -n 20 "$lint/configure.log" >&2; exit 1; }
if [ "$#" -gt 0 ]; then
  files=("$@")
else
  # What takes longest comes first.
  mapfile -t files < <(python3 - "$database/compile_commands.json" <<'PYTHON'
import json, os, sys
names = {entry["file"] for entry in json.load(open(sys.argv[1]))}
print(*sorted(names, key=lambda name: (not "/Unity/" in name, -os.path.getsize(name))), sep="\n")
PYTHON
  )
fi
[ "${#files[@]}" -gt 0 ] || { echo "run_clang_tidy.sh: no source file" >&2; exit 1; }

start=$SECONDS
status=0
printf '%s\0' "${files[@]}" |
  xargs -0 -n 1 -P "$(nproc)" "$lint/bin/clang-tidy" -p "$database" --config-file="$root/.clang-tidy" --quiet --extra-arg=-Wno-unknown-warning-option \
    --extra-arg=-idirafter"$openmp" --header-filter="^$root/(kernels|src|drivers)/" 2>/dev/null || status=1
if [ "$status" -eq 0 ]; then echo "clang-tidy: ${#files[@]} files or unity builds are clean ($((SECONDS - start)) s)"; fi
exit "$status"
