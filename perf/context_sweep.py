#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of training steps over lengths of context: `run` measures and appends a JSON object per run to a file,
`table` prints such files, `plot` draws them.

  context_sweep.py run DECK --contexts 64k,1m,5m --policies keep,rebuild --dataset FILE.h5 --records FILE.jsonl
  context_sweep.py table FILE.jsonl ...
  context_sweep.py plot FILE.jsonl ... --output FILE.svg
"""
import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile

from svg_plot import COLOURS, GAP, HEIGHT, TOP, Axis, Panel, document, legend

UNITS = {"k": 10**3, "m": 10**6, "g": 10**9}


class Failure(Exception):
    pass


def size(text):
    """Bytes: 65536, 64k, 5m, with units of 1000; 64ki and the like with 1024."""
    number, unit = text.lower(), 1
    if number.endswith("i") and number[-2:-1] in UNITS:
        unit, number = 1024 ** (list(UNITS).index(number[-2]) + 1), number[:-2]
    elif number[-1:] in UNITS:
        unit, number = UNITS[number[-1]], number[:-1]
    try:
        bytes_ = round(float(number) * unit)
    except (ValueError, OverflowError):
        bytes_ = 0
    if bytes_ < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes, such as 65536, 64ki or 5m")
    return bytes_


def sizes(text):
    return [size(part) for part in text.split(",")]


def policies(text):
    result = text.split(",")
    for policy in result:
        kind, _, interval = policy.partition(":")
        if kind not in ("deck", "auto", "keep", "rebuild", "two_level") or \
                (interval and not (kind == "two_level" and interval.isdigit())):
            raise argparse.ArgumentTypeError(
                f"{policy!r} is none of deck, auto, keep, rebuild, two_level and two_level:INTERVAL")
    return result


def changes_of(policy):
    """What a policy changes in the deck."""
    if policy == "deck":
        return []
    kind, _, interval = policy.partition(":")
    return [f"train.outer_tapes={kind}"] + ([f"train.border_interval={interval}"] if interval else [])


def strata(program, *arguments):
    """What `strata ... --json` prints."""
    done = subprocess.run([program, *arguments, "--json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(done.stderr.strip() or f"{program} {arguments[0]} ended with status {done.returncode}")
    return json.loads(done.stdout)


def train(program, deck, changes):
    """Runs a deck in a folder that does not outlive the call: its training records, where it ran, and the peak memory of
    the whole process."""
    folder = tempfile.mkdtemp(prefix="context_sweep_")
    try:
        command = [program, "train", deck, *changes, f"io.output_dir={folder}", "io.name_model=run", "--quiet"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            messages = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise Failure(messages.strip() or f"strata train ended with status {process.returncode}")
        with open(os.path.join(folder, "run", "metrics.jsonl"), encoding="utf-8") as file:
            records = [record for record in map(json.loads, file) if record["split"] == "train"]
        with open(os.path.join(folder, "run", "provenance.json"), encoding="utf-8") as file:
            return records, json.load(file)[-1], usage.ru_maxrss * 1024
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(options, dataset, available, context, policy):
    """One run: the record of its last step."""
    if context > available:
        raise Failure(f"the dataset's training split holds {available} bytes only")
    steps = 1 if context >= options.one_step_from else min(options.steps, available // context)
    changes = [*options.set, *changes_of(policy), f"params.input_seq_len={context}", f"io.dataset={dataset}",
               f"train.target_elements={steps}", "train.target_elements_strategy=batch", "train.batch_size=1",
               "train.gradient_accumulate_every=1", "train.max_eval_steps=1", "io.log_train_loss_amount=1000000",
               "io.checkpoint_every=0", "io.validate_amount=1"]
    info = strata(options.strata, "info", options.deck, *changes)
    plan = info["memory_per_rank"]
    records, place, process_peak = train(options.strata, options.deck, changes)
    last = records[-1]
    if last["step"] != steps or last["bytes_seen"] != steps * context:
        raise Failure(f"the run trained on {last['bytes_seen']} bytes instead of {steps} x {context}")
    seconds = last["step_seconds"] - last["optimizer_seconds"]
    return {"deck": os.path.basename(options.deck), "context": context, "policy": policy, "steps": steps,
            "seconds": seconds, "bytes_per_second": context / seconds,
            "step_seconds": last["step_seconds"], "optimizer_seconds": last["optimizer_seconds"],
            "step_bytes_per_second": last["bytes_per_second"], "gemm_fraction": last["gemm_fraction"],
            "loss": last["loss"], "peak_resident": last["peak_memory"], "process_peak": process_peak,
            "predicted": plan["predicted_peak_bytes"], "program": plan["program_bytes"],
            "outer_tapes": plan["outer_tapes"], "outer_chunks": plan["outer_chunks"], "parameters": info["parameters"],
            "flops_per_byte": info["flops_per_byte"]["training"], "changes": options.set,
            "threads": place["threads"], "backend": place["backend"], "commit": place["commit"], "host": place["host"],
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def run(options):
    with tempfile.TemporaryDirectory(prefix="context_sweep_") as folder:
        dataset = options.dataset
        if not dataset:
            dataset = os.path.join(folder, "data.h5")
            strata(options.strata, "pack", "--output", dataset, "--train", *options.pack)
        available = strata(options.strata, "info", dataset)["train"]["bytes"]
        failures = 0
        for context in options.contexts:
            for policy in options.policies:
                name = f"{length_text(context)} {policy}"
                try:
                    record = measure(options, dataset, available, context, policy)
                except Failure as failure:
                    failures += 1
                    print(f"context_sweep.py: {name}: {failure}", file=sys.stderr)
                    continue
                with open(options.records, "a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                print(f"{name}: {record['seconds']:.3g} s, {record['bytes_per_second']:.4g} bytes/s, "
                      f"peak {record['peak_resident'] / 1e6:.0f} MB, predicted {record['predicted'] / 1e6:.0f} MB", flush=True)
    if failures:
        raise Failure(f"{failures} runs failed")


def load(paths):
    records = []
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                lines = [(path, number, line) for number, line in enumerate(file, 1)]
        except OSError as error:
            raise Failure(f"cannot read {path}: {error.strerror}") from error
        for path, number, line in lines:
            try:
                record = json.loads(line)
                records.append({**record, "context": int(record["context"]),
                                **{key: float(record[key]) for key in ("seconds", "peak_resident", "predicted")}})
            except (ValueError, KeyError, TypeError) as error:
                raise Failure(f"{path}:{number} is no record of a run: {error}") from error
    if not records:
        raise Failure(f"no records in {', '.join(paths)}")
    return records


def length_text(context):
    for unit, factor in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if context >= factor:
            return f"{context / factor:.4g}{unit}"
    return f"{context:g}"


def error(record):
    """Of the prediction, as a fraction of what was measured, the program's own memory left out of both."""
    return (record["predicted"] - record["peak_resident"]) / max(record["peak_resident"] - record["program"], 1)


COLUMNS = (("deck", lambda r: r["deck"]),
           ("bytes of context", lambda r: f"{r['context']:,}".replace(",", " ")),
           ("policy", lambda r: r["policy"]),
           ("tapes, chunks", lambda r: f"{r['outer_tapes']}, {r['outer_chunks']}"),
           ("forward and backward, s", lambda r: f"{r['seconds']:.4g}"),
           ("optimiser, s", lambda r: f"{r['optimizer_seconds']:.3g}"),
           ("bytes/s without the optimiser", lambda r: f"{r['bytes_per_second']:.0f}"),
           ("bytes/s", lambda r: f"{r['step_bytes_per_second']:.0f}"),
           ("peak resident, MB", lambda r: f"{r['peak_resident'] / 1e6:.1f}"),
           ("predicted, MB", lambda r: f"{r['predicted'] / 1e6:.1f}"),
           ("off, without the program", lambda r: f"{error(r):+.1%}".replace("%", " %")),
           ("parameters", lambda r: f"{r['parameters']:,}".replace(",", " ")),
           ("threads", lambda r: str(r["threads"])),
           ("commit", lambda r: r["commit"]))


def table(options):
    print("| " + " | ".join(name for name, _ in COLUMNS) + " |")
    print("|" + " --- |" * len(COLUMNS))
    for record in load(options.files):
        print("| " + " | ".join(cell(record) for _, cell in COLUMNS) + " |")


# ---------------------------------------------------------------- the plot

LEAST, MOST = 1e3, 1e8  # contexts


def memory_text(value):
    return f"{value / 1e9:g} GB" if value >= 1e9 else f"{value / 1e6:g} MB"


def draw(records):
    """An SVG image: peak memory, measured and predicted, above throughput, both against the context. The latest record of
    a deck, a policy and a context counts."""
    series = {}
    for record in records:
        series.setdefault((record["deck"], record["policy"]), {})[record["context"]] = record
    contexts = Axis([LEAST, MOST, *(record["context"] for record in records)], length_text)
    memory = Panel(TOP, "Peak memory (dashed: predicted)", contexts,
                   Axis([record[key] for record in records for key in ("peak_resident", "predicted")], memory_text))
    rate = Panel(TOP + HEIGHT + GAP, "Forward and backward, bytes per second", contexts,
                 Axis([record["bytes_per_second"] for record in records], lambda value: f"{value:,.0f}".replace(",", " ")))
    svg = memory.frame() + rate.frame()
    named = []
    for number, ((deck, policy), by_context) in enumerate(sorted(series.items())):
        colour = COLOURS[number % len(COLOURS)]
        ordered = [by_context[context] for context in sorted(by_context)]
        svg += memory.line([(r["context"], r["predicted"]) for r in ordered], colour, dashed=True)
        svg += memory.line([(r["context"], r["peak_resident"]) for r in ordered], colour)
        svg += rate.line([(r["context"], r["bytes_per_second"]) for r in ordered], colour)
        named.append((f"{deck}, {policy}", colour, False))
    lines, height = legend(rate.top + HEIGHT + 34, named)
    return document(height, svg + lines)


def plot(options):
    image = draw(load(options.files))
    with open(options.output, "w", encoding="utf-8") as file:
        file.write(image)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("run", help="measure training steps")
    command.add_argument("deck")
    command.add_argument("--contexts", type=sizes, required=True, metavar="SIZE,...",
                         help="bytes of context: 65536, 64k (1000s), 64ki (1024s), 5m")
    command.add_argument("--policies", type=policies, default=["deck"], metavar="POLICY,...",
                         help="deck (default: as the deck has it), auto, keep, rebuild, two_level, two_level:INTERVAL")
    data = command.add_mutually_exclusive_group(required=True)
    data.add_argument("--dataset", metavar="FILE.h5")
    data.add_argument("--pack", nargs="+", metavar="PATH", help="files and folders to pack for the sweep")
    command.add_argument("--records", required=True, metavar="FILE.jsonl", help="file to append to")
    command.add_argument("--set", nargs="+", default=[], metavar="section.key=value", help="other changes to the deck")
    command.add_argument("--steps", type=int, default=2, choices=range(1, 101), metavar="N",
                         help="steps of a run, of which the last counts; default 2, as the first touches all memory")
    command.add_argument("--one-step-from", type=size, default=size("8m"), metavar="SIZE",
                         help="contexts from here on take one step; default 8m")
    command.add_argument("--strata", default="build/release/drivers/strata", metavar="PROGRAM")
    command.set_defaults(function=run)
    command = commands.add_parser("table", help="records as a Markdown table")
    command.add_argument("files", nargs="+", metavar="FILE.jsonl")
    command.set_defaults(function=table)
    command = commands.add_parser("plot", help="records as an SVG image")
    command.add_argument("files", nargs="+", metavar="FILE.jsonl")
    command.add_argument("--output", required=True, metavar="FILE.svg")
    command.set_defaults(function=plot)
    options = parser.parse_args()
    try:
        options.function(options)
    except (Failure, OSError) as failure:
        sys.exit(f"context_sweep.py: {failure}")


if __name__ == "__main__":
    main()
