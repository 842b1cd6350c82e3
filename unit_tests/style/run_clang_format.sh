#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fails when clang-format would change a source file.   run_clang_format.sh [CLANG_FORMAT]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mapfile -t files < <(find kernels src drivers perf unit_tests -name '*.[ch]pp')
[ "${#files[@]}" -gt 0 ] || { echo "run_clang_format.sh: no source file" >&2; exit 1; }
"${1:-clang-format-14}" --dry-run --Werror "${files[@]}"
echo "${#files[@]} files are formatted"
