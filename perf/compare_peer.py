#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains and runs the same models with this program and with the Python package mblm on PyTorch (CPU): same deck, same
weights, same bytes, same threads, in turn. Prints a Markdown table of medians and ratios, and keeps every repetition as JSON.

  compare_peer.py --threads 2
  compare_peer.py --models T+T --lengths 1ki,4ki,16ki:8 --width 512 --repetitions 5

The package is installed by pip into a virtual environment of its own below --folder, once.
"""
import argparse
import datetime
import json
import os
import resource
import signal
import sys
import time

from context_sweep import Failure, size
from peer import cases, report, sides

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LENGTHS = "1ki,4ki,16ki,16ki:8"
SOURCES = [os.path.join(HOME, folder) for folder in ("kernels", "src")]


def count(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def duration(text):
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def arguments(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=cases.models, default=cases.MODELS, metavar="NAME,...",
                        help=f"default {','.join(cases.MODELS)}")
    parser.add_argument("--lengths", type=cases.lengths, default=cases.lengths(LENGTHS), metavar="SIZE[:N],...",
                        help="bytes of context (4ki, 16k), each with the number of chunks of train_checkpoint_chunks; without it "
                             f"the package keeps all activations. Default {LENGTHS}")
    parser.add_argument("--width", type=cases.width, default=384, metavar="N",
                        help="width of the outermost stage, a multiple of 128; each further stage is half as wide; default 384")
    parser.add_argument("--layers", type=count, default=4, metavar="N",
                        help="layers of the outermost stage; each further one has half as many; default 4")
    parser.add_argument("--repetitions", type=count, default=3, metavar="N", help="of each side, in turn; default 3")
    parser.add_argument("--threads", type=count, default=len(os.sched_getaffinity(0)), metavar="N", help="default: all processors")
    parser.add_argument("--limit", type=duration, default=180, metavar="SECONDS",
                        help="of one repetition of one side; default 180")
    parser.add_argument("--memory", type=size, metavar="SIZE",
                        help="that either side may take (4g, 8gi); default: nine tenths of what the machine has free")
    parser.add_argument("--generate-seconds", type=duration, default=2, metavar="SECONDS",
                        help="that the package generates for in a repetition, at least one byte; default 2")
    parser.add_argument("--data", nargs="+", default=SOURCES, metavar="PATH",
                        help="files and folders to train on; default: this project's sources")
    parser.add_argument("--seed", type=int, default=1, help="of the initial weights, which the package draws; default 1")
    parser.add_argument("--folder", default="build/compare_peer", help="for all files; default build/compare_peer")
    parser.add_argument("--install", nargs="+", default=list(sides.PACKAGES), metavar="PACKAGE",
                        help="what pip installs, and its options, when the environment is not there yet; default mblm torch")
    parser.add_argument("--strata", default="build/release/drivers/strata", metavar="PROGRAM")
    return parser.parse_args(words)


def bytes_of(paths, wanted):
    """The first `wanted` bytes of files, sorted by path."""
    result = bytearray()
    for path in paths:
        if not os.path.exists(path):
            raise Failure(f"there is no {path}")
        inside = sorted(os.path.join(at, name) for at, _, names in os.walk(path) for name in names)
        files = inside if os.path.isdir(path) else [path]
        for name in files:
            if len(result) >= wanted:
                break
            with open(name, "rb") as file:
                result += file.read(wanted - len(result))
    if len(result) < wanted:
        raise Failure(f"{', '.join(paths)} hold {len(result)} bytes only, {wanted} are needed; name more by --data")
    return bytes(result)


def prepare(options, run, python, planned):
    """Bytes, packed and plain, and the weights of every case: as the package saves them and converted. {case: files}"""
    folder = os.path.abspath(options.folder)
    data, dataset = os.path.join(folder, "data.bin"), os.path.join(folder, "data.h5")
    content = bytes_of(options.data, max(case.length * case.steps for case in planned))
    with open(data, "wb") as file:
        file.write(content)
    run([options.strata, "pack", "--output", dataset, "--train", data, "--force"])
    files = {}
    for case in planned:
        place = os.path.join(folder, case.id)
        os.makedirs(place, exist_ok=True)
        files[case] = {"data": data, "folder": place, "run": os.path.join(place, "runs"),
                       **{name: os.path.join(place, name + ending)
                          for name, ending in (("weights", ".pth"), ("deck", ".yaml"), ("model", ".h5"), ("prompt", ".bin"))}}
        sides.write_json(files[case]["deck"], cases.deck(case, dataset, files[case]["run"]))  # JSON is YAML
        with open(files[case]["prompt"], "wb") as file:
            file.write(content[:case.length - case.generated])
    task = {"seed": options.seed, "threads": options.threads,
            "models": [{"params": cases.params(case), "weights": files[case]["weights"]} for case in planned]}
    answer = sides.work(run, python, "initialise", folder, task)
    if "failure" in answer:
        raise Failure(f"the package cannot make the models: {answer['failure']}")
    for case in planned:
        run(sides.convert_command(options.strata, files[case]))
    return files


def measure(options, run, python, case, files):
    """All repetitions of a case: this program, the package, this program ... A side that failed is not tried again."""
    task = sides.package_task(case, files, options.threads, options.generate_seconds)
    attempts = (lambda: sides.strata(run, options.strata, case, files),
                lambda: sides.work(run, python, "run", files["folder"], task))
    repetitions, failed = [], [None, None]
    for number in range(options.repetitions):
        pair = []
        for side, attempt in enumerate(attempts):
            pair.append(failed[side] or attempt())
            if "failure" in pair[side]:
                failed[side] = {"failure": pair[side]["failure"]}
        ours, theirs = pair
        repetitions.append(pair)
        say(case, number, ours, theirs)
        if "losses" in ours and "losses" in theirs:
            report.check_rates(ours["rates"], task["rates"])
            first, last = report.check_losses(case, ours["losses"], theirs["losses"])
            if number == 0:
                print(f"  losses of steps 1 and {case.steps}: {ours['losses'][0]:.7g} and {ours['losses'][-1]:.7g}, "
                      f"off by {first:.1e} and {last:.1e}", flush=True)
        if number == 0 and "generated" in ours and "generated" in theirs:
            equal = report.same_bytes(ours["generated"], theirs["generated"])
            print(f"  greedy bytes: {equal} of {len(theirs['generated'])} equal", flush=True)
    return {"model": case.model, "length": case.length, "chunks": case.chunks, "steps": case.steps,
            "params": cases.params(case), "repetitions": repetitions}


def say(case, number, *answers):
    words = []
    for name, answer in zip(("strata", "package"), answers):
        step = report.value(answer, "step")
        words.append(f"{name} {report.seconds(step) + ' a step' if step else answer.get('failure')}")
    print(f"{case.name}, repetition {number + 1}: {', '.join(words)}", flush=True)


def free_memory():
    with open("/proc/meminfo", encoding="utf-8") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "an unnamed processor")


class Clock:
    """How much of the processors' time others took since it was made."""

    def __init__(self):
        self.start = self.now()

    @staticmethod
    def now():
        with open("/proc/stat", encoding="utf-8") as file:
            user, nice, system, _, _, irq, softirq = map(int, file.readline().split()[1:8])
        busy = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
        own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return time.monotonic(), busy - sum(usage.ru_utime + usage.ru_stime for usage in own)

    def others(self):
        (begin, before), (end, after) = self.start, self.now()
        return max(after - before, 0) / ((end - begin) * os.cpu_count())


def main():
    options = arguments()
    options.strata = os.path.abspath(options.strata)
    planned = [cases.Case(model, length, chunks, options.width, options.layers)
               for length, chunks in options.lengths for model in options.models]
    os.makedirs(options.folder, exist_ok=True)
    run = sides.Runner(options.threads, options.limit, options.memory or int(0.9 * free_memory()))
    environment = os.path.join(os.path.abspath(options.folder), "venv")
    versions = sides.install(run, environment, options.install)
    python = sides.python_of(environment)
    files = prepare(options, run, python, planned)

    clock, begin = Clock(), time.monotonic()
    records = []
    for case in planned:
        records.append(measure(options, run, python, case, files[case]))
        text = keep(options, run, versions, clock, begin, records)
    print("\n" + text)


def keep(options, run, versions, clock, begin, records):
    """Writes what has been measured so far; the table."""
    records = sorted(records, key=lambda record: options.models.index(record["model"]))
    origins = [ours["provenance"] for record in records for ours, _ in record["repetitions"] if "provenance" in ours]
    if not origins:
        raise Failure("strata ended no run: " + report.why(records[0]["repetitions"], 0))
    place = {"versions": versions, "threads": options.threads, "processor": processor(), "repetitions": options.repetitions,
             "seed": options.seed, "memory": run.memory, "limit": options.limit, "others": clock.others(),
             "seconds": time.monotonic() - begin, **{key: origins[0][key] for key in ("commit", "backend", "blas", "host")},
             "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
             "command": " ".join(sys.argv)}
    sides.write_json(os.path.join(options.folder, "results.json"), {"place": place, "records": records})
    text = report.table(records) + "\n" + report.origin(place)
    with open(os.path.join(options.folder, "results.md"), "w", encoding="utf-8") as file:
        file.write(text)
    return text


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # ends the program that runs, too
    try:
        main()
    except (Failure, OSError) as error:
        sys.exit(f"compare_peer.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
