#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""perf/scaling: plans, results that fail or are interrupted, tables, fits, plots, prediction, submission, and a tiny sweep
with the real program on one and two ranks.

usage: test_scaling.py STRATA
"""
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import types
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from scaling_sweep import analysis, collection, execution, figures, limits, planning, prediction  # noqa: E402

SCALING = os.path.join(HERE, "scaling")
DECK = os.path.join(HERE, "..", "inputs", "memorise.yaml")
STEPS = 4
# Stands in for strata: info from the arguments, and a step that takes as long as FAKE_SECONDS says.
FAKE = r'''#!/usr/bin/env python3
import json, os, sys, time
words = dict(w.split("=", 1) for w in sys.argv[3:] if "=" in w)
rank, ranks = int(os.environ.get("OMPI_COMM_WORLD_RANK", 0)), int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1))
if sys.argv[1] == "info" and sys.argv[2].endswith(".h5"):
    print(json.dumps({"train": {"bytes": 100000}}))
elif sys.argv[1] == "info":
    context = int(words.get("params.input_seq_len", 256))
    plan = {"predicted_peak_bytes": 10**8, "outer_tapes": "keep", "outer_chunk_positions": 8, "outer_chunks": 8,
            "component_bytes": {}, "available_bytes": 10**9,
            "policies": {"keep": {"longest_context": 3000}, "rebuild": {"longest_context": 5000}}}
    stage = {"embedder_parameters": 10, "layer_parameters": 100, "bytes_per_position": 4, "layers": 2, "width": 64,
             "tape": {"bytes_per_position_and_layer": 1000}}
    if rank == 0:
        print(json.dumps({"parameters": 10**6, "flops_per_byte": {"training": 6e6}, "input_seq_len": context,
                          "memory_per_rank": plan, "stages": [stage, {**stage, "bytes_per_position": 1}]}))
else:
    if words.get("params.hidden_dims.0") == "32":
        sys.exit("strata: no such width")
    if "FAKE_STOP" in os.environ and ranks == 2:
        open(os.environ["FAKE_STOP"], "a").write("x")
        time.sleep(60)
    if rank == 0:
        open(os.environ["FAKE_LOG"], "a").write("x")
        folder = os.path.join(words["io.output_dir"], words["io.name_model"])
        os.makedirs(folder)
        steps = int(words["train.target_elements"]) // (
            ranks * int(words["train.batch_size"]) * int(words["train.gradient_accumulate_every"]))
        with open(os.path.join(folder, "metrics.jsonl"), "w") as out:
            for step in range(1, steps + 1):
                out.write(json.dumps({"step": step, "split": "train", "step_seconds": 0.1, "optimizer_seconds": 0.01,
                                      "bytes_per_second": 1e4, "gemm_fraction": 0.5, "peak_memory": 9e7}) + "\n")
        with open(os.path.join(folder, "provenance.json"), "w") as out:
            json.dump([{"ranks": ranks, "threads": 1, "commit": "c", "host": "h"}], out)
        if "--profile" in sys.argv:
            spread = {name: {"least": 1.0, "mean": mean, "most": mean + 1} for name, mean in (("kernels", 6), ("MPI", 3), ("all", 10))}
            with open(os.path.join(folder, "profile.json"), "w") as out:
                json.dump({"seconds": 10, "parts": {"kernels": 6, "MPI": 3, "checkpoints": 1}, "over_ranks": spread, "limits": {}}, out)
'''


def check(condition, message):
    if not condition:
        sys.exit(f"test_scaling: {message}")


def close(a, b, message, tolerance=1e-9):
    check(abs(a - b) <= tolerance * max(abs(a), abs(b), 1e-300), f"{message}: {a} is not {b}")


def scaling(*arguments, **variables):
    return subprocess.run([sys.executable, SCALING, *arguments], capture_output=True, text=True, check=False,
                          env={**os.environ, **variables})


def succeed(*arguments, **variables):
    done = scaling(*arguments, **variables)
    check(done.returncode == 0, f"{arguments}: status {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def refuse(words, *arguments):
    done = scaling(*arguments)
    check(done.returncode != 0 and "Traceback" not in done.stderr, f"{arguments} was not refused: {done.stderr}")
    for word in words:
        check(word in done.stderr, f"{arguments}: no {word!r} in: {done.stderr}")


def rows_of(folder):
    with open(os.path.join(folder, "table.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# ---------------------------------------------------------------- functions

def test_functions():
    check(planning.split(8, 4) == (4, 2) and planning.split(6, 4) == (3, 2) and planning.split(7, 4) == (1, 7)
          and planning.split(3, 8) == (3, 1), "windows are dealt to other micro-batches")
    check(planning.lengths("1ki..5k,3k", lambda: 4500) == [1024, 3000, 4096], "lengths")
    check(planning.lengths("1ki..fit", lambda: 20000) == [1024, 4096, 16384], "lengths up to what fits")
    text = "train:\n  # batch_size: 9\n  eval_batch_size: 7\n  batch_size: 1_6  # windows\n"
    check(planning.number_of(text, "batch_size") == 16 and planning.number_of(text, "seed") == 1, "numbers of a deck")
    a, b = limits.least_squares([(0, 3.0), (1, 5.0), (2, 7.0)])
    close(a, 3, "constant of a line", 1e-12)
    close(b, 2, "slope of a line", 1e-12)
    for ranks, expected in ((1, 0.0), (2, 0.5895), (4096, 3.6109)):
        close(prediction.slowest(ranks), expected, f"slowest of {ranks}", 1e-3)
    line = {"ranks": 2, "threads": 1, "sums": [{"bytes": n, "seconds": 2 * 5e-6 + n / 2e9} for n in (4e3, 4e6, 88e6)]}
    latency, bandwidth = limits.messages([{"ranks": 1, "threads": 1, "sums": []}, line])
    close(latency, 5e-6, "latency", 1e-6)
    close(bandwidth, 2e9, "bandwidth", 1e-6)
    check(limits.messages([]) is None, "messages without measurement")


def model(**changes):
    values = {"window_seconds": 0.1, "optimizer_seconds": 0.05, "batch": 4, "threads": 1, "inner_bytes": 6e7,
              "outer_bytes": 3e7, "outer_share": 0.3, "latency": 1e-6, "bandwidth": 1e10, "bucket_bytes": 2e7, "jitter": 0.0,
              "overlap": 0.0, "sharing": 1.0, "ranks_per_node": 2, "cores_per_node": 2}
    return prediction.Model(**{**values, **changes})


def test_model():
    plain = model()
    close(prediction.step(plain, 1, 4)["step"], 0.45, "one rank sends nothing")
    # 3 + 2 buckets of 14 messages on 8 ranks, and 2 * 7 / 8 of 90 MB.
    expected = 5 * 14e-6 + 2 * 7 / 8 * 9e7 / 1e10
    close(prediction.step(plain, 8, 4)["messages"], expected, "messages of a ring")
    close(prediction.step(model(algorithm="halving"), 8, 4)["messages"], 5 * 6e-6 + 2 * 7 / 8 * 9e7 / 1e10, "halving")
    close(prediction.step(model(algorithm="best"), 4096, 4)["messages"],
          prediction.step(model(algorithm="halving"), 4096, 4)["messages"], "the best is the shorter one")
    # Behind two thirds of 0.3 of the last micro-batch's 0.4 s all inner sums vanish, the outer ones never do.
    close(prediction.step(model(overlap=1.0), 8, 4)["messages"], 2 * 14e-6 + 2 * 7 / 8 * 3e7 / 1e10, "overlap")
    half = prediction.step(model(overlap=1.0, inner_bytes=6e9, outer_bytes=0.0), 2, 8)
    close(half["messages"], 300 * 2e-6 + 0.6 - 0.4 * 0.3 * 2 / 3, "overlap with one of two micro-batches", 1e-9)
    close(prediction.step(model(sharing=1.2), 2, 4)["compute"], 0.48, "a full node")
    close(prediction.step(model(sharing=1.2), 4, 4, on_node=4)["compute"], 0.96, "two ranks on a core")
    close(prediction.step(model(jitter=0.1), 4096, 4)["imbalance"], 0.04 * prediction.slowest(4096), "imbalance")


# ---------------------------------------------------------------- recorded results

def record(folder, sweep, value, ranks, windows, seconds, optimiser=0.1, others=(), context=1000, peak=1e8, alone=False, **more):
    """Writes a case and its result: steps of `seconds`, the first one slower."""
    changes = [f"params.input_seq_len={context}", f"train.batch_size={windows}", "train.gradient_accumulate_every=1",
               *(f"{key}={one}" for key, one in more.items())]
    case = planning.Case("/decks/made.yaml", changes, ranks, 1, STEPS, windows, context, 1, alone).name_it("deck")
    planning.extend_plan(folder, [{"sweep": sweep, "value": value, "case": vars(case)}])

    def run(step_seconds):
        mine = windows * context * (1 if alone else ranks)
        return [{"step": step, "step_seconds": step_seconds * (2 if step == 1 else 1), "optimizer_seconds": optimiser,
                 "bytes_per_second": mine / step_seconds, "gemm_fraction": 0.5, "peak_memory": peak} for step in range(1, STEPS + 1)]
    stage = {"bytes_per_position": 8, "layers": 2, "parameters": 4 * 10**6, "layer_parameters": 4 * 10**6, "tape": 4096}
    info = {"parameters": 10**7, "flops_per_byte": 1e6, "predicted_peak": 0.9 * peak, "outer_tapes": "keep", "outer_chunk": 8,
            "outer_chunks": 16, "components": {},
            "stages": [stage, {**stage, "bytes_per_position": 1, "parameters": 6 * 10**6, "layer_parameters": 10**6}]}
    execution.write(execution.result_path(folder, case), {
        "id": case.id, "case": vars(case), "status": "done", "records": run(seconds), "others": [run(other) for other in others],
        "info": info, "provenance": {"ranks": 1 if alone else ranks, "threads": 1, "commit": "abc", "host": "h"},
        "wall_seconds": 1.0, "command": ["strata", "train", *changes], "launcher": [], "job": None, "cores": 2, "date": "2026"})
    return case


def recorded_folder(folder):
    record(folder, "weak", 1, 1, 4, 1.1)
    record(folder, "weak", 2, 2, 4, 1.375)
    record(folder, "alone", 2, 2, 4, 1.2, others=[1.25], alone=True)
    record(folder, "weak", 4, 4, 4, 2.75)
    record(folder, "strong", 1, 1, 8, 2.1)
    record(folder, "strong", 2, 2, 4, 1.375)
    for context, peak in ((1000, 6e7), (4000, 9e7), (16000, 2.1e8)):
        seconds = context * (1e-6 + 1e-12 * context) + 0.1
        record(folder, "length", context, 1, 1, seconds, context=context, peak=peak)
    for chunk, seconds in ((8, 1.0), (16, 0.8)):
        record(folder, "chunk", chunk, 1, 4, seconds, chunk=chunk)
    missing = planning.Case("/decks/made.yaml", ["not=run"], 1, 1, STEPS, 4, 1000).name_it("deck")
    failed = planning.Case("/decks/made.yaml", ["too=wide"], 1, 1, STEPS, 4, 1000).name_it("deck")
    planning.extend_plan(folder, [{"sweep": "model", "value": factor, "case": vars(case)} for factor, case in ((2, missing), (4, failed))])
    execution.write(execution.result_path(folder, failed), {"id": failed.id, "case": vars(failed), "status": "failed",
                                                            "reason": "status 1: no | memory"})
    sums = [{"bytes": n, "seconds": 2 * 2e-6 + n / 4e9} for n in (4e3, 4e6, 88e6)]
    planning.append_lines(os.path.join(folder, "limits.jsonl"), [
        {"ranks": ranks, "threads": 1, "gemm_flops": 1e11, "triad_bytes_per_second": 1e10, "sums": sums if ranks == 2 else []}
        for ranks in (1, 2)])


def test_recorded(folder):
    recorded_folder(folder)
    rows = collection.collect(folder)
    weak = {row["value"]: row for row in rows if row["sweep"] == "weak"}
    strong = {row["value"]: row for row in rows if row["sweep"] == "strong"}
    close(weak[1]["step_seconds"], 1.1, "the first step counts")
    close(weak[1]["gemm_flops"], 1e6 * 4000 / 1.1 / 0.5, "GEMM peak out of a run's share of it")
    close(analysis.efficiency(rows, weak[2]), 0.8, "weak efficiency")
    close(analysis.efficiency(rows, strong[2]), 2.1 / 2 / 1.375, "strong efficiency")
    whole, machine, share = analysis.core_efficiency(rows, weak[4])
    close(whole, 0.4, "efficiency of a core")
    close(whole, machine * share, "its factors")
    check(weak[4]["oversubscribed"] and not weak[2]["oversubscribed"], "four ranks on two cores are not marked")
    for row in (weak[2], strong[2]):
        close(sum(analysis.losses(rows, row).values()), 1 - analysis.efficiency(rows, row), "losses do not add up")
    parts = {cause: part * 1.375 for cause, part in analysis.losses(rows, weak[2]).items()}
    for cause, seconds in (("optimiser", 0.0), ("sharing the machine", 0.1), ("imbalance", 0.05), ("messages", 0.125)):
        # The median of the steps of 1.2 and 1.25 s is their mean.
        seconds += {"sharing the machine": 0.025, "imbalance": -0.025}.get(cause, 0)
        check(abs(parts[cause] - seconds) < 1e-9, f"{cause}: {parts}")
    check(abs(analysis.losses(rows, strong[2])["optimiser"] - 0.05 / 1.375) < 1e-9, "the optimiser is not divided")
    check("rest" in analysis.losses(rows, weak[4]), "four ranks without runs side by side have no rest")

    quick = next(row for row in collection.collect(folder, fastest=True) if row["sweep"] == "alone")
    close(quick["step_seconds"], 1.2, "the fastest step")
    close(quick["gemm_fraction"] * quick["gemm_flops"], 1e6 * 8000 / 1.2, "rate of the fastest step")
    text = succeed("table", folder)
    check("failed: status 1: no / memory" in text and "not run" in text, f"rows are missing: {text}")
    check(len(rows_of(folder)) == len(rows) == 13 and os.path.exists(os.path.join(folder, "table.md")), "table.jsonl")
    text = succeed("fit", folder)
    for words in ("| weak | made | 2 x 1 | 1.375 | 0.800 |", "step = 0.65 s + 1.45 s / ranks", "strong, made",
                  "time per byte = 1 us + 1 us per million", "peak memory = 50.0 MB + 1e+04 bytes per byte",
                  "fastest with 16 positions", "1 rows of the table have failed runs", "1 rows of the table have runs still to do"):
        check(words in text, f"no {words!r} in {text}")


def test_plots(folder):
    output = os.path.join(folder, "plots")
    kernels = os.path.join(folder, "kernels.json")
    with open(kernels, "w", encoding="utf-8") as file:
        json.dump({"context": {"gemm_float_gflops": "100", "triad_gbytes_per_s": "10"},
                   "benchmarks": [{"name": "a", "GFLOP/s": 50.0, "GB/s": 5.0}, {"name": "b", "GB/s": 5.0}]}, file)
    names = ["throughput", "memory", "efficiency", "roofline"]
    for options in ([], ["--plain"]):
        printed = succeed("plot", folder, "--output", output, "--kernels", kernels, *options).split()
        check([os.path.basename(path) for path in printed] == [name + ".svg" for name in names], f"plots: {printed}")
        for path in printed:
            texts = "\n".join("".join(e.itertext()) for e in xml.etree.ElementTree.parse(path).getroot().iter())
            for word in {"throughput": ("made, 1 x 1", "bytes per second"), "memory": ("predicted",),
                         "efficiency": ("weak, made, 1 threads", "ideal"),
                         "roofline": ("kernels, kernels.json", "limit, 1 threads", "steps, made, 1 threads")}[
                             os.path.basename(path)[:-4]]:
                check(word in texts, f"{path} {options}: no {word}")
    drawn = xml.etree.ElementTree.parse(os.path.join(output, "throughput.svg")).getroot()   # the plain one
    check(len(list(drawn.iter("{http://www.w3.org/2000/svg}circle"))) == 3, "points of the throughput")
    limit, points = figures.kernel_points(kernels)
    check(limit == (1e11, 1e10) and points == [(10.0, 50.0)], "points of kernels")
    if figures.has_matplotlib():
        succeed("plot", folder, "--output", output, "--format", "png")
        with open(os.path.join(output, "memory.png"), "rb") as file:
            check(file.read(4) == b"\x89PNG", "memory.png")
    else:
        refuse(["matplotlib"], "plot", folder, "--output", output, "--format", "png")


def test_prediction(folder):
    text = succeed("predict", folder, "--cores", "2")
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line.startswith("| ")]
    weak = {line[0]: line for line in lines[2:15]}
    check(sorted(map(int, weak)) == [2**n for n in range(13)], f"ranks of the prediction: {text}")
    # One rank: 1.0 s + 0.1 s. Two share the machine: 1.225 / 1.1 - with the optimiser left out, 1.125 / 1.0.
    close(float(weak["1"][1]), 1.1, "one rank", 1e-3)
    gradient = 4e7
    expected = 1.125 + 0.1 + 3 * 2 * 2e-6 + gradient / 4e9
    close(float(weak["2"][1]), expected, "two ranks", 1e-3)
    close(float(weak["2"][8]), 1.375, "the measurement beside it", 1e-3)
    check(weak["2"][-1] == "measured" and weak["4"][-1] == "measured, more threads than cores", f"labels: {weak['4']}")
    check(all(weak[str(n)][-1] == "prediction only" for n in (8, 4096)), "predictions are not labelled")
    # Four ranks on two cores take turns.
    close(float(weak["4"][2]), 2 * 1.125, "compute of four ranks here", 1e-3)
    efficiencies = [float(weak[str(n)][6]) for n in (1, 2, 8, 64, 4096)]
    check(efficiencies == sorted(efficiencies, reverse=True) and efficiencies[-1] < 0.9, f"efficiencies {efficiencies}")
    strong = lines[17:21]
    check([line[0] for line in strong] == ["1", "2", "4", "8"] and "cannot be dealt to 16, 32" in text,
          f"more ranks than windows: {text}")
    close(float(strong[1][8]), 1.375, "the measurement beside it", 1e-3)
    check([line[0] for line in lines[23:]] == [str(2**n) for n in range(13)], "strong scaling of 4096 windows")
    given = succeed("predict", folder, "--ranks", "1,1000", "--latency", "0", "--bandwidth", "1e30", "--jitter", "0", "--sharing", "1",
                    "--ranks-per-node", "1")
    check("| 1000 | 1.1 | 1 | 0.1 | " in given and "| 1.000 |" in given, f"nothing is lost without causes: {given}")
    os.remove(os.path.join(folder, "limits.jsonl"))
    refuse(["--latency and --bandwidth"], "predict", folder)
    succeed("predict", folder, "--latency", "1e-6", "--bandwidth", "1e9")
    made = os.path.join(folder, "bench.json")
    with open(made, "w", encoding="utf-8") as file:
        json.dump({"context": {"ranks": "2", "threads": "1", "gemm_float_gflops": "100", "triad_gbytes_per_s": "10", "host": "h",
                               "commit": "c", "backend": "b", "blas": "o", "time_utc": "t", "command": "bench_comm"},
                   "benchmarks": [{"name": "gradient_sync/float/local/9", "run_type": "iteration", "real_time": 2000.0, "time_unit": "us", "GB/s": 2.0,
                                   "wire_GB/s": 2.0},
                                  {"name": "parameter_gather/float/local/9", "run_type": "iteration", "real_time": 9.0, "time_unit": "us",
                                   "GB/s": 2.0, "wire_GB/s": 2.0},
                                  {"name": "gradient_sync/float/local/9_mean", "run_type": "aggregate", "real_time": 9.0, "time_unit": "us", "GB/s": 2.0,
                                   "wire_GB/s": 2.0}]}, file)
    succeed("limits", folder, "--read", made)
    line = limits.read_limits(folder)[-1]
    check(len(line["sums"]) == 1 and abs(line["sums"][0]["bytes"] - 4e6) < 1e-3 and line["gemm_flops"] == 1e11, f"limits: {line}")


# ---------------------------------------------------------------- plans, failures, interruptions

def count(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def test_plan(fake):
    options = types.SimpleNamespace(deck=DECK, dataset="data.h5", set=[], windows=4, global_windows=None, lengths="1ki..fit",
                                    memory=None, widths=[0.5, 1], chunks=[], steps=3, repetitions=2, alone=True, profile=True, strata=fake,
                                    sweeps=list(planning.SWEEPS), ranks=[1, 2], threads=[1, 2])
    lines = planning.Planner(options).plan()

    def of(sweep, threads=1):
        found = {}
        for line in lines:
            case = line["case"]
            if line["sweep"] == sweep and case["threads"] == threads and case["repetition"] == 1:
                found[line["value"], case["ranks"]] = case
        return found
    for sweep, number in (("strong", 2), ("weak", 2), ("alone", 1), ("profile", 2), ("length", 4), ("model", 4), ("chunk", 10)):
        check(len(of(sweep)) == len(of(sweep, 2)) == number, f"{sweep}: {len(of(sweep))} cases: {list(of(sweep))}")
    check([of("strong")[n, n]["windows"] for n in (1, 2)] == [8, 4], "the global batch is not fixed")
    check([of("weak")[n, n]["windows"] for n in (1, 2)] == [4, 4], "the batch of a rank is not fixed")
    check(of("weak")[2, 2]["id"] == of("strong")[2, 2]["id"] != of("alone")[2, 2]["id"], "equal cases run twice")
    check("train.target_elements=24" in of("strong")[2, 2]["changes"], f"steps: {of('strong')[2, 2]['changes']}")
    check("train.target_elements=12" in of("alone")[2, 2]["changes"], "steps of ranks side by side")
    check(sorted({value for value, _ in of("length")}) == [1024, 4096], "lengths up to what fits")
    check("train.gradient_accumulate_every=1" in of("length")[1024, 1]["changes"], "windows of 1024 bytes")
    check("params.hidden_dims.1=32" in of("model")[0.5, 1]["changes"], "half the width")
    check(sorted({value for value, _ in of("chunk")}) == [2, 4, 8, 16, 32], "chunks around the automatic one")
    check([line["case"]["repetition"] for line in lines[:2]] == [1, 2], "repetitions")


def test_failures(fake, folder, log):
    run = ["run", DECK, "--strata", fake, "--dataset", "data.h5", "--results", folder, "--steps", "3", "--machine", "debian",
           "--sweeps", "weak,model", "--widths", "0.5,1", "--windows", "2", "--no-alone"]
    text = succeed(*run, FAKE_LOG=log)
    rows = rows_of(folder)
    check([row["status"] for row in rows] == ["done", "failed", "done"], f"{text}")
    check("no such width" in rows[1]["reason"] and "failed: status 1: strata: no such width" in text, f"no reason: {rows[1]}")
    done = count(log)
    check(done == 2, f"{done} runs")
    succeed(*run, FAKE_LOG=log)
    check(count(log) == 2, "finished runs ran again")
    check("1 runs to do" in succeed(*run, "--retry-failed", FAKE_LOG=log), "failed runs are not retried")

    # A second group is interrupted in its first case; the same command goes on behind what was done.
    stop = os.path.join(folder, "stop")
    more = [*run, "--ranks", "1,2"]
    with subprocess.Popen([sys.executable, SCALING, *more], env={**os.environ, "FAKE_LOG": log, "FAKE_STOP": stop},
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.time() + 120
        while count(stop) == 0 and time.time() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, messages = process.communicate(timeout=120)
    check(process.returncode != 0 and "interrupted; the same command continues" in messages, f"after a signal: {messages}")
    check(all(row["status"] == "not run" for row in collection.collect(folder) if row["ranks"] == 2), "an interrupted run counts")
    text = succeed(*more, FAKE_LOG=log)
    check(count(log) == 4 and "model | memorise | widths x 0.5 | 2 x 1" in text, f"after continuing: {count(log)} runs: {text}")
    succeed(*run, "--sweeps", "weak", "--profile", "--set", "train.seed=3", FAKE_LOG=log)
    fitted = succeed("fit", folder)
    check("| 2 windows per rank | memorise train.seed=3 | 1 x 1 | 60.0 % | 30.0 % | - | - | 10.0 % | - | 10.0 % |" in fitted,
          f"profile: {fitted}")
    slow = succeed(*more, "--limit", "1", "--windows", "1", "--sweeps", "weak", "--ranks", "2", FAKE_LOG=log, FAKE_STOP=stop)
    check("not finished after 1 s" in slow, f"a run without end: {slow}")

    for words, bad in ((["sideways"], ["--sweeps", "sideways"]), (["evenly"], ["--ranks", "2,3", "--global-windows", "4"]),
                       (["no_such"], ["--strata", "/no_such"]), (["--ranks"], ["--ranks", "0"])):
        refuse(words, *run, "--sweeps", "strong", *bad)
    refuse(["nothing is planned"], "table", os.path.join(folder, "none"))


def test_submission(fake, folder):
    for machine, expected in (("generic-slurm", ["--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--cpus-per-task=2"]),
                              ("perlmutter", ["--nodes=1", "--ntasks=3", "--cpus-per-task=4", "--gpus-per-node=4", "--constraint=gpu"]),
                              ("lumi-g", ["--nodes=1", "--ntasks-per-node=3", "--gpus-per-node=8"])):
        text = succeed("submit", DECK, "--strata", fake, "--dataset", "data.h5", "--results", os.path.join(folder, machine),
                       "--sweeps", "weak", "--ranks", "3", "--threads", "2", "--machine", machine, "--dry-run", "--", "-A", "project")
        words = text.splitlines()[-1].split()
        check("STRATA_THREADS=2" in words and "sbatch" in words, f"{machine}: {text}")
        for word in expected:
            check(word in words, f"{machine}: no {word} in {words}")
        at = next(i for i, word in enumerate(words) if word.endswith("jobscripts/scaling.sbatch"))
        check(words[at - 2:at] == ["-A", "project"] and words[at + 1] == machine, f"{machine}: {words}")
        check(machine != "lumi-g" or not any("cpus-per-task" in word for word in words), "cores beside masks on LUMI-G")
    refuse(["no folder of a machine"], "submit", DECK, "--strata", fake, "--dataset", "d.h5", "--results", folder, "--machine", "nowhere",
           "--dry-run")


# ---------------------------------------------------------------- the real program

def test_real(strata, folder):
    data = os.path.join(folder, "data.h5")
    subprocess.run([strata, "pack", "--output", data, "--train", SCALING], check=True, stdout=subprocess.DEVNULL)
    results = os.path.join(folder, "real")
    text = succeed("run", DECK, "--strata", strata, "--dataset", data, "--results", results, "--sweeps", "strong,weak,length",
                   "--ranks", "1,2", "--lengths", "64,256", "--steps", "3", "--profile")
    rows = rows_of(results)
    profiled = [row for row in rows if row["sweep"] == "profile"]
    check([row["ranks"] for row in profiled] == [1, 2, 1], f"profiles: {text}")
    for row in profiled:
        parts = row.get("profile", {}).get("parts", {})
        check(set(analysis.PARTS) <= set(parts) and 0 < sum(parts.values()) <= 1.001 * row["profile"]["seconds"], f"profile: {row}")
    # One rank waits for nobody; that it loses its core in a call of MPI does not happen in every run.
    check(min(row["profile"]["parts"]["MPI"] / row["profile"]["seconds"] for row in profiled if row["ranks"] == 1) < 0.01,
          f"one rank waits in MPI: {profiled}")
    rows = [row for row in rows if row["sweep"] != "profile"]
    check(all(row["status"] == "done" for row in rows), f"failed runs: {text}")
    check([(row["sweep"], row["value"], row["ranks"]) for row in rows] ==
          [("strong", 1, 1), ("strong", 2, 2), ("alone", 2, 2), ("weak", 1, 1), ("weak", 2, 2), ("length", 64, 1),
           ("length", 256, 1), ("length", 64, 2), ("length", 256, 2)], f"rows: {text}")
    for row in rows:
        check(row["provenance"]["ranks"] == (1 if row["sweep"] == "alone" else row["ranks"]) and row["provenance"]["commit"],
              f"origin of {row}")
        limits = row["provenance"]["limits"]
        check(limits["gemm_flops_per_second"] > 0 and limits["gemm_double_flops_per_second"] > 0
              and limits["memory_bytes_per_second"] > 0 and limits["hdf5_read_bytes_per_second"] > 0
              and ("mpi_latency_seconds" in limits) == (row["provenance"]["ranks"] > 1), f"limits of {row}")
        check(0 < row["optimizer_seconds"] < row["step_seconds"] and row["gemm_flops"] > 1e8, f"times of {row}")
        check(-1 < row["beside"] < os.cpu_count() + 1, f"work of others beside {row}")
        check(1e6 < row["peak_memory"] and 1e6 < row["predicted_peak"], f"memory of {row}")
        close(row["bytes_per_second"] * row["step_seconds"], row["step_bytes"], "bytes per second")
    check(rows[2]["slowest_seconds"] >= rows[2]["step_seconds"] * 0.5, "ranks side by side")
    fitted = succeed("fit", results)
    check("| weak | memorise | 2 x 1 |" in fitted and math.isfinite(analysis.efficiency(rows, rows[4])), f"fit: {fitted}")
    check("prediction only" in succeed("predict", results, "--latency", "1e-6", "--bandwidth", "1e9"), "prediction")


def main():
    strata = os.path.abspath(sys.argv[1])
    test_functions()
    test_model()
    with tempfile.TemporaryDirectory() as top:
        def folder(name):
            path = os.path.join(top, name)
            os.mkdir(path)
            return path
        fake = os.path.join(top, "strata")
        with open(fake, "w", encoding="utf-8") as file:
            file.write(FAKE)
        os.chmod(fake, 0o755)
        recorded = folder("recorded")
        test_recorded(recorded)
        test_plots(recorded)
        test_prediction(recorded)
        test_plan(fake)
        test_failures(fake, os.path.join(top, "fake"), os.path.join(top, "log"))
        test_submission(fake, folder("submission"))
        test_real(strata, folder("real"))


main()
