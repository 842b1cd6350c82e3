#!/usr/bin/env bash
# The whole test suite: every test in build/release, the tests of input and output under AddressSanitizer and
# UndefinedBehaviorSanitizer in build/sanitize, and the linter. Sets the machine up first if need be.
# Continues after a failed part, says at the end what failed, and exits with status 1 then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
jobscripts/debian/setup.sh strata unit_tests
# shellcheck source=jobscripts/debian/environment.sh
source jobscripts/debian/environment.sh

cores=$(nproc)
failed=()
# part NAME COMMAND...
part() {
  local name=$1 start=$SECONDS
  shift
  printf '== %s\n' "$name"
  if "$@"; then printf '== %s: passed (%d s)\n' "$name" "$((SECONDS - start))"; else
    failed+=("$name")
    printf '== %s: FAILED (%d s)\n' "$name" "$((SECONDS - start))"
  fi
}

# One more than there are cores, since the tests of Slurm mostly wait.
run_release_tests() { ctest --test-dir build/release --output-on-failure --no-tests=error -j "$((cores + 1))"; }

# What reads files that others wrote. MPI and HDF5 are not instrumented and keep memory until the end, hence no leak check.
run_sanitized_tests() {
  cmake --preset sanitize >build/sanitize.log 2>&1 || { tail -n 20 build/sanitize.log >&2; return 1; }
  cmake --build build/sanitize --target sanitized_tests || return 1
  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
    ctest --test-dir build/sanitize --output-on-failure --no-tests=error -j "$cores" -L '^(io|data|deck|malformed)$'
}

part "tests" run_release_tests
part "tests under sanitizers" run_sanitized_tests
part "clang-tidy" unit_tests/style/run_clang_tidy.sh

if [ "${#failed[@]}" -gt 0 ]; then
  printf 'test.sh: failed: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
  exit 1
fi
echo "test.sh: everything passed"
