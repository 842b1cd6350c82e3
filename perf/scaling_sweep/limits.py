# SPDX-License-Identifier: Apache-2.0
"""Limits of the machine for numbers of ranks and threads, from bench_comm: GEMM peak, triad, and the time to sum gradients of
several sizes, from which latency and bandwidth of messages are fitted."""
import json
import os
import subprocess
import tempfile

from context_sweep import Failure

from . import planning
from .execution import HOME

SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


def read_benchmark(path):
    """A file that bench_comm wrote with --benchmark_out, as a line of limits.jsonl."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        context = content["context"]
        sums = [{"bytes": entry["GB/s"] * 1e9 * entry["real_time"] * SECONDS[entry["time_unit"]],
                 "seconds": entry["real_time"] * SECONDS[entry["time_unit"]]}
                for entry in content["benchmarks"] if entry.get("run_type") != "aggregate" and "wire_GB/s" in entry
                and entry["name"].startswith("gradient_sync/")]
        return {"ranks": int(context["ranks"]), "threads": int(context["threads"]),
                "gemm_flops": 1e9 * float(context["gemm_float_gflops"]),
                "triad_bytes_per_second": 1e9 * float(context["triad_gbytes_per_s"]), "sums": sums,
                **{key: context[key] for key in ("host", "commit", "backend", "blas", "time_utc", "command")}}
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from error
    except (KeyError, ValueError) as error:
        raise Failure(f"{path} is no result of bench_comm: {error!r}") from error


def measure(options):
    """`perf/scaling limits`."""
    os.makedirs(options.results, exist_ok=True)
    path = os.path.join(options.results, "limits.jsonl")
    if options.read:
        planning.append_lines(path, [read_benchmark(file) for file in options.read])
        return
    shell = 'source "$STRATA_HOME/jobscripts/machine.sh" && exec "${launcher[@]}" "$@"'
    for threads in options.threads:
        for ranks in options.ranks:
            with tempfile.TemporaryDirectory(prefix="strata_scaling_") as folder:
                out = os.path.join(folder, "out.json")
                variables = {"STRATA_HOME": HOME, "STRATA_MACHINE": options.machine, "STRATA_LAUNCH": options.launch,
                             "STRATA_THREADS": str(threads), "SLURM_NTASKS": str(ranks), "SLURM_CPUS_PER_TASK": str(threads)}
                command = ["bash", "-c", shell, "bash", options.bench, f"--benchmark_filter={options.filter}",
                           f"--benchmark_out={out}", f"--benchmark_repetitions={options.repetitions}"]
                done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    raise Failure(f"{options.bench} on {ranks} ranks: {done.stderr.strip()[-500:]}")
                line = read_benchmark(out)
            planning.append_lines(path, [line])
            print(f"{ranks} ranks x {threads} threads: GEMM {line['gemm_flops'] / 1e9:.0f} GFLOP/s and triad "
                  f"{line['triad_bytes_per_second'] / 1e9:.1f} GB/s on a rank's cores", flush=True)


def read_limits(folder):
    return planning.read_lines(os.path.join(folder, "limits.jsonl"))


def least_squares(points):
    """(a, b) of y = a + b x with the least relative error; points (x, y). Two points are met exactly."""
    weights = [1 / (y * y) for _, y in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points)) / total
    square = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points))
    if square == 0:
        return mean_y, 0.0
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points)) / square
    return mean_y - slope * mean_x, slope


def messages(limits, ranks=None):
    """(latency in s, bandwidth in bytes/s) of a ring's messages from the sums measured on `ranks` ranks; None without any.
    A ring of n ranks sends 2 (n - 1) messages, each of 1 / n of the buffer, one after the other."""
    lines = [line for line in limits if line["ranks"] > 1 and line["sums"] and ranks in (None, line["ranks"])]
    if not lines:
        return None
    n = min(line["ranks"] for line in lines)
    threads = min(line["threads"] for line in lines if line["ranks"] == n)
    points = [(entry["bytes"], entry["seconds"]) for line in lines if (line["ranks"], line["threads"]) == (n, threads)
              for entry in line["sums"]]
    constant, per_byte = least_squares(points)
    constant = max(constant, 0.0)
    if per_byte <= 0:
        raise Failure("limits.jsonl: larger sums took no longer, so no bandwidth follows; measure again")
    return constant / (2 * (n - 1)), 2 * (n - 1) / n / per_byte
