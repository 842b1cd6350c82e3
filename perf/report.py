#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Markdown table of one or more benchmark JSON files: the median over repetitions of time and counters.

Usage: report.py [--sort COUNTER] FILE.json ...
"""
import argparse
import json
import statistics
import sys

# What Google Benchmark itself writes for a run; every other number is a counter of ours.
STANDARD = {"family_index", "per_family_instance_index", "repetitions", "repetition_index", "threads", "iterations",
            "real_time", "cpu_time"}
CONTEXT = ("host", "date", "commit", "backend", "threads", "ranks", "kokkos_version", "blas", "gemm_float_gflops",
           "gemm_double_gflops", "triad_gbytes_per_s", "mpi_latency_us", "mpi_gbytes_per_s",
           "hdf5_write_gbytes_per_s", "hdf5_read_gbytes_per_s", "command")


def load(path):
    """The context of a file and its results: one per benchmark, the medians of its repetitions."""
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    repetitions, errors = {}, []
    for run in content["benchmarks"]:
        if run.get("error_occurred"):
            errors.append(f"{run['run_name']}: {run.get('error_message', 'failed')}")
        elif run["run_type"] == "iteration" or run.get("aggregate_name") == "median":
            repetitions.setdefault(run["run_name"], []).append(run)
    results = []
    for name, runs in repetitions.items():
        # Files written with --benchmark_report_aggregates_only hold the median itself.
        single = [run for run in runs if run["run_type"] == "iteration"] or runs
        numbers = [key for key, value in single[0].items()
                   if isinstance(value, (int, float)) and not isinstance(value, bool) and key not in STANDARD]
        median = {key: statistics.median(run[key] for run in single) for key in numbers}
        results.append({"benchmark": name, "shape": single[0].get("label", ""),
                        "time": statistics.median(run["real_time"] for run in single),
                        "unit": single[0]["time_unit"], "repetitions": len(single), "counters": median})
    return content["context"], results, errors


def number(value):
    return "" if value is None else f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def table(results, sort):
    counters = list(dict.fromkeys(key for result in results for key in result["counters"]))
    if sort:
        if sort not in counters:
            sys.exit(f"report.py: no benchmark has the counter {sort}; there are {', '.join(counters) or 'none'}")
        results = sorted(results, key=lambda result: result["counters"].get(sort, float("inf")))
    head = ["benchmark", "shape", "time", *counters]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * 2 + "---:|" * (len(head) - 2)]
    for result in results:
        cells = [result["benchmark"], result["shape"], f"{number(result['time'])} {result['unit']}",
                 *(number(result["counters"].get(key)) for key in counters)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Markdown table of benchmark JSON files")
    parser.add_argument("files", nargs="+", metavar="FILE.json")
    parser.add_argument("--sort", metavar="COUNTER", help="order rows by a counter, smallest first")
    arguments = parser.parse_args()
    failed = []
    for path in arguments.files:
        try:
            context, results, errors = load(path)
        except (OSError, ValueError, KeyError) as error:
            sys.exit(f"report.py: cannot read {path}: {error}")
        failed += errors
        # Files of different machines get tables of their own.
        print("; ".join(f"{key} {context[key]}" for key in CONTEXT if key in context) + "\n")
        print(table(results, arguments.sort) + "\n")
    if failed:
        sys.exit("report.py: " + "; ".join(failed))


if __name__ == "__main__":
    main()
