#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs clang-tidy with the checks of .clang-tidy over our sources; any finding is an error. Its version is the newest that
# was tried here: unlike that of Debian it passes over system headers, which takes a third of the time. It is installed
# by pip into build/lint when it is missing.
#
#   unit_tests/style/run_clang_tidy.sh [BUILD_DIR [FILE...]]     default: build/release, every source it compiles
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
build=${1:-build/release}
[ "$#" -eq 0 ] || shift
[ -f "$build/compile_commands.json" ] || { echo "run_clang_tidy.sh: $build/compile_commands.json is missing; configure $build first" >&2; exit 1; }

version=23.1.4
lint=$root/build/lint
if ! "$lint/bin/clang-tidy" --version 2>/dev/null | grep -q "version $version"; then
  { python3 -m venv "$lint" && "$lint/bin/pip" -q install "clang-tidy==$version"; } ||
    { echo "run_clang_tidy.sh: clang-tidy $version cannot be installed into $lint" >&2; exit 1; }
fi
# Kokkos includes <omp.h>, of which there is only g++'s here.
openmp=$(dirname "$(g++ -print-file-name=include/omp.h)")

if [ "$#" -gt 0 ]; then
  files=("$@")
else
  mapfile -t files < <(python3 - "$build/compile_commands.json" "$root" <<'PYTHON'
import json, sys
names = {entry["file"] for entry in json.load(open(sys.argv[1]))}
folders = tuple(f"{sys.argv[2]}/{folder}/" for folder in ("kernels", "src", "drivers"))
print(*sorted(name for name in names if name.startswith(folders)), sep="\n")
PYTHON
  )
fi
[ "${#files[@]}" -gt 0 ] || { echo "run_clang_tidy.sh: no source file" >&2; exit 1; }

# clang cannot read g++'s precompiled headers, so it gets commands without them.
database=$(mktemp -d)
trap 'rm -rf "$database"' EXIT
python3 - "$build/compile_commands.json" >"$database/compile_commands.json" <<'PYTHON'
import json, re, sys
entries = json.load(open(sys.argv[1]))
for entry in entries:
    entry["command"] = re.sub(r" -Winvalid-pch| -include \S*/cmake_pch\.hxx", "", entry["command"])
json.dump(entries, sys.stdout)
PYTHON

start=$SECONDS
status=0
printf '%s\0' "${files[@]}" |
  xargs -0 -n 1 -P "$(nproc)" "$lint/bin/clang-tidy" -p "$database" --quiet --extra-arg=-Wno-unknown-warning-option \
    --extra-arg=-idirafter"$openmp" --header-filter="^$root/(kernels|src|drivers)/" 2>/dev/null || status=1
if [ "$status" -eq 0 ]; then echo "clang-tidy: ${#files[@]} files are clean ($((SECONDS - start)) s)"; fi
exit "$status"
