#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""compare_peer.py without the package: its numbers and table, its decks as strata reads them, a whole comparison of two programs
that only answer, and what it refuses.

usage: test_compare_peer.py STRATA
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
# pylint: disable=wrong-import-position
import compare_peer  # noqa: E402
from context_sweep import Failure  # noqa: E402
from peer import cases, report, sides  # noqa: E402

# Answers as strata does; writes what it was asked to a log.
FAKE_STRATA = '''#!/usr/bin/env python3
import json, os, sys
open(os.environ["FAKE_LOG"], "a").write("strata " + sys.argv[1] + "\\n")
assert os.environ["OMP_NUM_THREADS"] == "3"
if sys.argv[1] == "train":
    deck = json.load(open(sys.argv[2]))
    folder = os.path.join(deck["io"]["output_dir"], "run")
    os.makedirs(folder)
    steps, peak = deck["train"]["target_elements"], deck["train"]["learning_rate"]
    import math
    w = math.floor(steps * deck["train"]["warmup_steps_perc"])
    with open(os.path.join(folder, "metrics.jsonl"), "w") as out:
        for i in range(steps):
            rate = peak * (0.1 + 0.9 * i / w if i < w else (1 + math.cos(math.pi * (i - w) / (steps - w))) / 2)
            out.write(json.dumps({"split": "train", "loss": 5.5, "step_seconds": 9.0 if i == 0 else 0.5, "learning_rate": rate,
                                  "peak_memory": 100e6}) + "\\n")
    with open(os.path.join(folder, "provenance.json"), "w") as out:
        json.dump([{"commit": "c0ffee", "backend": "OpenMP", "blas": "BLAS", "host": "h"}], out)
elif sys.argv[1] == "generate":
    print(json.dumps({"samples": [{"bytes": [65, 66, 67]}]}))
    print("[info] 9 bytes of prompt read in 0.01 s, 900 bytes/s\\n[info] 3 bytes in 0.00 s, 1000 bytes/s", file=sys.stderr)
'''

# Answers as the virtual environment's Python does.
FAKE_PYTHON = '''#!/usr/bin/env python3
import json, os, sys
if sys.argv[1] == "-c":
    print(json.dumps({name: "1.2" for name in ("python", "mblm", "torch", "mambapy", "MEGABYTE-pytorch")}))
    sys.exit()
open(os.environ["FAKE_LOG"], "a").write("package " + sys.argv[2] + "\\n")
task = json.load(open(sys.argv[3]))
if sys.argv[2] == "run":
    if task["params"]["input_seq_len"] == 64:
        print(json.dumps({"program_memory": 1}))
        sys.exit("RuntimeError: can't allocate memory: you tried to allocate 7 bytes")
    n = len(task["rates"])
    print(json.dumps({"losses": [float(os.environ["FAKE_LOSS"])] * n, "step_seconds": [7.0] + [1.0] * (n - 1),
                      "peak_memory": 250e6}))
    print(json.dumps({"generated": [65, 66], "generate_seconds": 0.4}))
'''


def check(condition, message):
    if not condition:
        sys.exit(f"test_compare_peer: {message}")


def refuse(words, function, *arguments):
    try:
        function(*arguments)
    except (Failure, argparse.ArgumentTypeError) as failure:
        for word in words:
            check(word in str(failure), f"no {word!r} in: {failure}")
    else:
        check(False, f"{function.__name__}{arguments} was not refused")


def answer(seconds, memory, generated=None):
    return {"step_seconds": [99.0, *seconds], "peak_memory": memory,
            **({"generated": [1] * 4, "generate_seconds": generated} if generated else {})}


def test_numbers():
    pairs = [(answer([1.0, 3.0, 2.0], 100, 0.4), answer([4.0, 4.0, 9.0], 300, 4.0)),
             (answer([1.0], 100, 0.2), answer([5.0], 250, 8.0)), (answer([4.0], 100, 0.4), {"failure": "out of memory"})]
    found = report.compared(pairs, "step")
    check(found == {"strata": 2.0, "package": 4.5, "ratio": (3.5, 2.0, 5.0)}, f"steps: {found}")
    check(report.compared(pairs, "memory")["ratio"] == (2.75, 2.5, 3.0), "memory")
    found = report.compared(pairs, "generate")
    check(abs(found["strata"] - 0.1) < 1e-12 and abs(found["ratio"][0] - 25) < 1e-9, f"generation: {found}")
    check(report.compared(pairs[2:], "step") == {"strata": 4.0, "package": None, "ratio": None}, "a side that failed")

    row = report.table([{"model": "T+T", "length": 16384, "chunks": 8, "repetitions": pairs[:2]}]).splitlines()[-1]
    for text in ("| T+T | 16 Ki | 8 | 1.5 s | 4.5 s | 10923 | 3641 | 3.50 (2.00 .. 5.00) |", "| 2.75 (2.50 .. 3.00) |"):
        check(text in row, f"no {text!r} in {row}")
    row = report.table([{"model": "T+T", "length": 100, "chunks": 0, "repetitions": pairs[2:]}]).splitlines()[-1]
    check(row.count("out of memory") == 4 and "| T+T | 100 | - | 4 s | out of memory |" in row and row.endswith("| - |"), row)

    case = cases.Case("T+T", 65536)
    check(report.check_losses(case, [5.0, 4.0], [5.00005, 4.2])[0] < 2e-5, "equal losses")
    refuse(["first loss", "5.001", "T+T 65536"], report.check_losses, case, [5.0, 4.0], [5.001, 4.0])
    refuse(["first loss"], report.check_losses, case, [float("nan"), 4.0], [5.0, 4.0])
    refuse(["instead of 2"], report.check_losses, case, [5.0], [5.0, 4.0])
    refuse(["learning rates"], report.check_rates, [1e-4, 1e-5], [1e-4, 2e-5])
    check(report.same_bytes([1, 2, 3], [1, 2, 4]) == 2 and report.same_bytes([1, 2, 3], [1, 2]) == 2, "equal bytes")


def test_cases(strata, folder):
    check(cases.lengths("1ki,16ki:8") == ((1024, 0), (16384, 8)), "lengths")
    for bad in ("4", "1ki:", "1ki:0", "x", "1ki,,2ki"):
        refuse([], cases.lengths, bad)
    refuse(["Mamba-2"], cases.models, "T+T,Mamba-2")
    for bad in ("100", "0", "-128", "x"):
        refuse([bad, "128"], cases.width, bad)
    check([cases.Case("T+T", n).steps for n in (16, 4096, 65536, 10**6)] == [17, 9, 2, 2], "steps")
    check(max(abs(a - b) for a, b in zip(cases.rates(20), [1e-5, 5.5e-5, 1e-4])) < 1e-12 and len(cases.rates(20)) == 20, "rates")

    # strata accepts every deck, and its models are what they say.
    kinds = {"T+T": ["transformer"] * 2, "T+T+T": ["transformer"] * 3, "Mamba-1+T": ["mamba1", "transformer"]}
    for model in cases.MODELS:
        case = cases.Case(model, 1000, 3, 128, 2)
        path = sides.write_json(os.path.join(folder, "deck.yaml"), cases.deck(case, "none.h5", folder))
        done = subprocess.run([strata, "info", path, "--json"], capture_output=True, text=True, check=False)
        check(done.returncode == 0 and "warn" not in done.stderr, f"{model}: {done.stderr}")
        info = json.loads(done.stdout)
        check(info["input_seq_len"] == 1000 and len(info["stages"]) == len(kinds[model]), f"{model}: {info}")
        check([block["block_type"] for block in cases.params(case)["block"]] == kinds[model], f"kinds of {model}")


def test_sides():
    files = {"weights": "w.pth", "deck": "d.yaml", "model": "m.h5", "prompt": "p", "data": "b"}
    case = cases.Case("T+T", 1024)
    check(sides.train_command("strata", files) == ["strata", "train", "d.yaml", "resume.checkpoint_file=m.h5", "--quiet"], "train")
    check(sides.convert_command("strata", files)[:8] ==
          ["strata", "convert", "--from", "w.pth", "--deck", "d.yaml", "--output", "m.h5"], "convert")
    check(sides.generate_command("strata", case, files)[-5:] == ["--bytes", "256", "--temperature", "0", "--json"], "generate")
    task = sides.package_task(case, files, 2, 3.0)
    check(len(task["rates"]) == case.steps == 17 and task["generate"] == {"prompt": 768, "most": 256, "seconds": 3.0}, f"{task}")
    check(sides.install_commands("f", ["mblm", "torch"])[1] ==
          [os.path.join("f", "bin", "python"), "-m", "pip", "install", "mblm", "torch"], "install")
    os.environ["OPENBLAS_NUM_THREADS"] = "7"
    own = sides.environment(2)
    check(own["OMP_NUM_THREADS"] == "2" and "OPENBLAS_NUM_THREADS" not in own, "threads of both sides")
    words = "a 9 bytes of prompt read in 0.01 s, 900 bytes/s\nb 3 bytes in 0.00 s, 1000 bytes/s"
    check(sides.speeds(words) == [900, 1000], "speeds")
    refuse(["speed"], sides.speeds, "nothing")
    check(sides.reason("Traceback\n ...\nRuntimeError: no\n", 1) == "RuntimeError: no"
          and sides.reason("", 9) == "ended with status 9"
          and sides.reason("std::bad_alloc\nmore", 1) == "out of memory", "reasons")
    run = sides.Runner(1, 0.2, 10**9)
    refuse(["not finished after"], run, ["sleep", "60"])
    refuse(["cannot start"], run, [os.path.join(HERE, "none")])
    refuse(["out of memory"], sides.Runner(1, 60, 2 * 10**8), [sys.executable, "-c", "bytearray(10**9)"])


def compare(folder, *words, **variables):
    return subprocess.run([sys.executable, os.path.join(HERE, "compare_peer.py"), "--folder", folder, *words], capture_output=True,
                          text=True, check=False, env={**os.environ, **variables})


def test_whole(folder):
    work, log = os.path.join(folder, "work"), os.path.join(folder, "log")
    os.makedirs(os.path.join(work, "venv", "bin"))
    fakes = {os.path.join(folder, "strata"): FAKE_STRATA, os.path.join(work, "venv", "bin", "python"): FAKE_PYTHON}
    for path, text in fakes.items():
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o755)
    words = ["--strata", os.path.join(folder, "strata"), "--threads", "3", "--models", "T+T", "--lengths", "32,64:2",
             "--repetitions", "2", "--data", os.path.join(HERE, "compare_peer.py")]
    done = compare(work, *words, FAKE_LOG=log, FAKE_LOSS="5.5")
    check(done.returncode == 0, f"status {done.returncode}: {done.stderr}")
    with open(log, encoding="utf-8") as file:
        asked = file.read().splitlines()
    both = ["strata train", "strata generate", "package run"]
    check(asked == ["strata pack", "package initialise", "strata convert", "strata convert", *both, *both, *both, *both[:2]],
          f"not in turn, or tried again what failed: {asked}")
    with open(os.path.join(work, "results.md"), encoding="utf-8") as file:
        text = file.read()
    for part in ("| T+T | 32 | - | 500 ms | 1 s | 64 | 32 | 2.00 (2.00 .. 2.00) | 100 | 250 | 2.50 (2.50 .. 2.50) |",
                 "| T+T | 64 | 2 | 500 ms | out of memory |", "c0ffee", "mblm 1.2"):
        check(part in text and part in done.stdout, f"no {part!r} in {text}")
    check("greedy bytes: 2 of 2" in done.stdout and "off by 0.0e+00" in done.stdout, done.stdout)
    with open(os.path.join(work, "results.json"), encoding="utf-8") as file:
        found = json.load(file)
    check(len(found["records"]) == 2 and len(found["records"][0]["repetitions"]) == 2 and found["place"]["threads"] == 3, "results")

    done = compare(work, *words, FAKE_LOG=log, FAKE_LOSS="5.6")
    check(done.returncode == 1 and "not the same model" in done.stderr and "Traceback" not in done.stderr, done.stderr)
    for extra, word in ((["--lengths", "1x"], "1x"), (["--models", "S4"], "S4"), (["--width", "96"], "96"),
                        (["--repetitions", "0"], "0"), (["--limit", "-1"], "-1"), (["--data", "none"], "there is no none"),
                        (["--lengths", "1m"], "are needed"),
                        (["--strata", os.path.join(folder, "none")], "cannot start")):
        done = compare(work, *words, *extra, FAKE_LOG=log, FAKE_LOSS="5.5")
        check(done.returncode != 0 and word in done.stderr and "Traceback" not in done.stderr, f"{extra}: {done.stderr}")


def main():
    check(compare_peer.arguments([]).lengths[0] == (1024, 0), "defaults")
    with tempfile.TemporaryDirectory() as folder:
        test_numbers()
        test_cases(os.path.abspath(sys.argv[1]), folder)
        test_sides()
        test_whole(folder)


main()
