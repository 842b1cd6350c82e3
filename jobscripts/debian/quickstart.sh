#!/usr/bin/env bash
# From a bare Debian 12 to a trained model: sets the machine up, packs the C and C++ headers under /usr/include, trains
# inputs/quickstart.yaml on all cores, evaluates on the held-out files and prints a sample. At most 10 minutes on 2 cores.
# Run again, it keeps what is there: a finished training is only evaluated, an interrupted one continues.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
jobscripts/debian/setup.sh strata
# shellcheck source=jobscripts/debian/environment.sh
source jobscripts/debian/environment.sh

strata=build/release/drivers/strata
work=build/quickstart
dataset=$work/headers.h5
run=runs/quickstart
max_bytes=32000000   # of headers; more would only lengthen the evaluation

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
fail() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

# Headers in the order of their paths, spread evenly when there are more than max_bytes of them.
list_headers() {
  find /usr/include -type f -size +0 -readable \( -name '*.h' -o -name '*.hpp' -o -path '/usr/include/c++/*' ! -name '*.*' \) -printf '%s %p\n' |
    LC_ALL=C sort -k 2 |
    awk -v limit="$max_bytes" '
      { size[NR] = $1; sub(/^[0-9]+ /, ""); path[NR] = $0; total += size[NR] }
      END {
        share = total > limit ? limit / total : 1
        for (i = 1; i <= NR; ++i) {
          seen += size[i]
          if (kept + size[i] <= share * seen + 0.5) { kept += size[i]; print path[i] }
        }
      }'
}

[ -x "$strata" ] || fail "$strata is missing although the set-up went through; remove build/release and run this again"
[ -f inputs/quickstart.yaml ] || fail "inputs/quickstart.yaml is missing; restore it with: git checkout inputs/quickstart.yaml"
mkdir -p "$work"
if [ -f "$dataset" ]; then
  say "using $dataset"
else
  mapfile -t headers < <(list_headers)
  [ "${#headers[@]}" -ge 100 ] || fail "found ${#headers[@]} C and C++ headers under /usr/include, too few to train on; install libc6-dev and libstdc++-12-dev"
  say "packing ${#headers[@]} headers into $dataset"
  "$strata" pack --output "$dataset" --split 0.95,0.05 "${headers[@]}" || fail "packing failed, see the message above"
fi

say "training inputs/quickstart.yaml on $OMP_NUM_THREADS threads into $run"
"$strata" train inputs/quickstart.yaml io.dataset="$dataset" || {
  status=$?
  [ "$status" -eq 75 ] && fail "stopped by a signal after saving; run the same command again to continue"
  fail "training failed with status $status, see the message above"
}

say "evaluating on the held-out files"
"$strata" eval --checkpoint "$run" --data "$dataset" --split validation --json >"$work/evaluation.json" || fail "evaluation failed, see the message above"

say "a sample that continues '#include <':"
"$strata" generate --checkpoint "$run" --prompt '#include <' --bytes 400 --temperature 0.7 --seed 1 || fail "generation failed, see the message above"
echo

python3 - "$work/evaluation.json" "$run" <<'PYTHON'
import json, sys
result = json.load(open(sys.argv[1]))
print(f"validation bits per byte: {result['bits_per_byte']:.3f}  "
      f"({result['bytes']} bytes of {len(result['documents'])} held-out files, step {result['step']}, model in {sys.argv[2]})")
PYTHON
