#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A sweep over tiny contexts, its table, its plot, and what it refuses.

usage: test_context_sweep.py STRATA
"""
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
SWEEP = os.path.join(HERE, "context_sweep.py")
DECK = os.path.join(HERE, "..", "inputs", "memorise.yaml")
SVG = "{http://www.w3.org/2000/svg}"


def check(condition, message):
    if not condition:
        sys.exit(f"test_context_sweep: {message}")


def sweep(*arguments):
    return subprocess.run([sys.executable, SWEEP, *arguments], capture_output=True, text=True, check=False)


def succeed(*arguments):
    done = sweep(*arguments)
    check(done.returncode == 0, f"{arguments}: status {done.returncode}: {done.stderr}")
    return done.stdout


def refuse(words, *arguments):
    done = sweep(*arguments)
    check(done.returncode != 0 and "Traceback" not in done.stderr, f"{arguments} was not refused: {done.stderr}")
    for word in words:
        check(word in done.stderr, f"{arguments}: no {word!r} in: {done.stderr}")


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_run(strata, folder):
    records = os.path.join(folder, "records.jsonl")
    run = ["run", DECK, "--strata", strata, "--records", records]
    succeed(*run, "--pack", SWEEP, "--contexts", "64,1k", "--policies", "keep,rebuild,two_level:2",
            "--set", "train.outer_chunk=3")
    found = read(records)
    check([(r["context"], r["policy"]) for r in found] ==
          [(c, p) for c in (64, 1000) for p in ("keep", "rebuild", "two_level:2")], "runs are missing or out of order")
    for r in found:
        check(0 < r["optimizer_seconds"] < r["step_seconds"], f"times of {r}")
        check(abs(r["seconds"] - r["step_seconds"] + r["optimizer_seconds"]) < 1e-12, f"seconds of {r}")
        check(abs(r["bytes_per_second"] * r["seconds"] - r["context"]) < 1e-6, f"rate of {r}")
        check(r["steps"] == 2 and r["parameters"] > 1e5 and r["deck"] == "memorise.yaml", f"numbers of {r}")
        check(1e6 < r["peak_resident"] <= r["process_peak"], f"peak of {r}")
        check(1e6 < r["program"] < r["predicted"] < 1e9, f"prediction of {r}")
        check(r["outer_tapes"] == r["policy"].partition(":")[0], f"policy of {r}")
        check(r["outer_chunks"] == {64: 6, 1000: 84}[r["context"]], f"chunks of {r}")
        check(r["commit"] and r["host"] and r["date"], f"origin of {r}")
    for same in (found[:3], found[3:]):
        check(len({r["loss"] for r in same}) == 1, f"policies lead to losses {[r['loss'] for r in same]}")

    rows = succeed("table", records).splitlines()
    check(len(rows) == 2 + 6 and "| 1 000 | two_level:2 | two_level, 84 |" in rows[-1], f"table: {rows}")

    refuse(["100K", "bytes only"], *run, "--pack", DECK, "--contexts", "64,100k")
    check(len(read(records)) == 7, "what was possible is not recorded, or more than that")
    refuse(["No such file"], *run, "--pack", os.path.join(folder, "none"), "--contexts", "64")
    refuse(["hidden_dim"], *run, "--pack", SWEEP, "--contexts", "64", "--set", "params.hidden_dim=3")
    check(len(read(records)) == 7, "a failed run is recorded")


def test_plot(folder):
    """Records at the corners of both panels."""
    records = os.path.join(folder, "made.jsonl")
    points = [(10**3, 1e8, 1e8, 1e3), (10**5, 1e9, 1e9, 1e4), (10**8, 1e10, 1e9, 1e5)]
    with open(records, "w", encoding="utf-8") as file:
        for context, peak, predicted, rate in points:
            file.write(json.dumps({"deck": "a<b", "policy": "keep", "context": context, "seconds": context / rate,
                                   "bytes_per_second": rate, "peak_resident": peak, "predicted": predicted}) + "\n")
    image = os.path.join(folder, "plot.svg")
    succeed("plot", records, "--output", image)
    root = xml.etree.ElementTree.parse(image).getroot()
    texts = [text.text for text in root.iter(SVG + "text")]
    for text in ("1K", "100M", "100 MB", "10 GB", "1 000", "100 000", "a<b, keep"):
        check(text in texts, f"no {text} in the plot: {texts}")
    places = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter(SVG + "circle")]
    check(len(places) == 6, f"{len(places)} points")
    for panel in (places[:3], places[3:]):
        (x0, y0), (x1, y1), (x2, y2) = panel
        check(abs((x1 - x0) / (x2 - x0) - 2 / 5) < 1e-3 and abs((y1 - y0) / (y2 - y0) - 1 / 2) < 1e-3 and y2 < y0,
              f"points are not on logarithmic axes: {panel}")
    dashed = [path for path in root.iter(SVG + "path") if path.get("stroke-dasharray")]
    check(len(dashed) == 1 and dashed[0].get("d").count("L") == 2, "the prediction's line")

    with open(records, "a", encoding="utf-8") as file:
        file.write("{}\n")
    refuse([records + ":4"], "plot", records, "--output", image)
    refuse(["none.jsonl"], "table", os.path.join(folder, "none.jsonl"))


def main():
    with tempfile.TemporaryDirectory() as folder:
        test_plot(folder)
        test_run(sys.argv[1], folder)
        for option, bad in (("--contexts", "5x"), ("--contexts", "0"), ("--policies", "drop"), ("--policies", "keep:2")):
            arguments = {"--contexts": "64", "--policies": "keep", option: bad}
            refuse([bad], "run", DECK, "--pack", DECK, "--records", os.path.join(folder, "r"),
                   *(word for pair in arguments.items() for word in pair))


main()
