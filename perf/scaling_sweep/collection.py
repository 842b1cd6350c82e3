# SPDX-License-Identifier: Apache-2.0
"""All runs of a sweep in one table: a row for each position on a sweep's axis, medians over (or the fastest of) steps and
repetitions. What failed or has not run is a row too."""
import json
import os
import statistics

from context_sweep import Failure, length_text

from . import execution, planning


def steady(records):
    """Without the first step, which touches all memory."""
    return records[1:] or records


def spread(values):
    """Standard deviation over the median, from the median deviation, which single outliers do not move."""
    middle = statistics.median(values)
    return 1.4826 * statistics.median(abs(value - middle) for value in values) / middle


def summary(results, fastest):
    """Of the repetitions of one case. fastest: the fastest step counts in place of the median one."""
    pick, pick_rate = (min, max) if fastest else (statistics.median, statistics.median)
    runs = [result["records"] for result in results] + [other for result in results for other in result["others"]]
    records = [record for run in runs for record in steady(run)]
    steps = [record["step_seconds"] for record in records]
    first = results[0]
    case, info, provenance = first["case"], first["info"], first["provenance"]
    side = len(first["others"]) + 1  # programs side by side
    step = pick(steps)
    bytes_per_step = case["windows"] * case["ranks"] * case["context"]
    row = {
        "step_seconds": step, "step_spread": spread(steps), "steps_measured": len(steps),
        "optimizer_seconds": pick(record["optimizer_seconds"] for record in records),
        "bytes_per_second": bytes_per_step / step,
        "flops_per_second": info["flops_per_byte"] * bytes_per_step / step,
        "gemm_flops": side * pick_rate(info["flops_per_byte"] * record["bytes_per_second"] / record["gemm_fraction"]
                                       for record in records),
        "peak_memory": max(record["peak_memory"] for record in records), "predicted_peak": info["predicted_peak"],
        "info": info, "provenance": provenance, "command": first["command"], "launcher": first["launcher"],
        "job": first["job"], "date": first["date"],
        "beside": None if first.get("beside") is None else statistics.median(result["beside"] for result in results),
        "oversubscribed": case["ranks"] * case["threads"] > first["cores"] * int(provenance.get("nodes", 1))
                          and first["job"] is None}
    row["gemm_fraction"] = row["flops_per_second"] / row["gemm_flops"]
    if side > 1:
        groups = [zip(*(steady(run) for run in [result["records"], *result["others"]])) for result in results]
        row["slowest_seconds"] = pick(max(record["step_seconds"] for record in group) for steps in groups for group in steps)
    if first.get("profile"):
        row["profile"] = {key: first["profile"][key] for key in ("seconds", "parts", "over_ranks", "limits")}
    return row


def collect(folder, fastest=False):
    """The rows of a folder of results, in the order of the plan."""
    groups = {}
    for line in planning.read_plan(folder):
        case = line["case"]
        key = (line["sweep"], case.deck, line["value"], case.ranks, case.threads, case.windows, case.context,
               tuple(case.changes), case.steps, tuple(case.set))
        groups.setdefault(key, []).append(case)
    rows = []
    for (sweep, deck, value, ranks, threads, windows, context, _, _, changes), cases in groups.items():
        name = " ".join([os.path.splitext(os.path.basename(deck))[0], *changes])
        row = {"sweep": sweep, "deck": name, "value": value, "ranks": ranks,
               "threads": threads, "windows": windows, "context": context, "step_bytes": windows * ranks * context}
        results = [(case, execution.read_result(folder, case)) for case in cases]
        done = [result for _, result in results if result and result["status"] == "done"]
        failed = [result for _, result in results if result and result["status"] == "failed"]
        row.update(repetitions=len(done), failed=len(failed), not_run=len(cases) - len(done) - len(failed))
        row["status"] = "done" if done else "failed" if failed else "not run"
        if failed:
            row["reason"] = failed[0]["reason"]
        if done:
            try:
                row.update(summary(done, fastest))
            except (KeyError, IndexError, TypeError, ZeroDivisionError, statistics.StatisticsError) as error:
                raise Failure(f"a result of {cases[0].id} is not complete: {error!r}; delete it to run the case again") from error
        rows.append(row)
    return rows


def spaced(number):
    return f"{number:,.0f}".replace(",", " ")


def value_text(row):
    if row["sweep"] == "length":
        return length_text(row["value"])
    if row["sweep"] == "model":
        known = f", {row['info']['parameters'] / 1e6:.3g} M" if "info" in row else ""
        return f"widths x {row['value']:g}{known}"
    if row["sweep"] == "chunk":
        known = f", {row['info']['outer_chunks']} chunks" if "info" in row else ""
        return f"{row['value']} positions{known}"
    return ""


COLUMNS = (("sweep", lambda r: r["sweep"]), ("deck", lambda r: r["deck"]), ("at", value_text),
           ("ranks x threads", lambda r: f"{r['ranks']} x {r['threads']}" + (" *" if r.get("oversubscribed") else "")),
           ("windows per rank x bytes", lambda r: f"{r['windows']} x {spaced(r['context'])}"),
           ("step, s", lambda r: f"{r['step_seconds']:.4g}"),
           ("spread", lambda r: f"{100 * r['step_spread']:.0f} %"),
           ("optimiser, s", lambda r: f"{r['optimizer_seconds']:.2g}"),
           ("bytes/s", lambda r: spaced(r["bytes_per_second"])),
           ("GFLOP/s", lambda r: f"{r['flops_per_second'] / 1e9:.1f}"),
           ("of the GEMM peak", lambda r: f"{100 * r['gemm_fraction']:.0f} %"),
           ("peak of rank 0, MB", lambda r: f"{r['peak_memory'] / 1e6:.0f}"),
           ("predicted, MB", lambda r: f"{r['predicted_peak'] / 1e6:.0f}"),
           ("cores used by others", lambda r: "-" if r["beside"] is None else f"{max(0.0, r['beside']):.2f}"),
           ("runs", lambda r: str(r["repetitions"]) + (f" ({r['failed']} failed)" if r["failed"] else "")))
PLANNED = 5  # columns that are known without a run


def markdown(heads, rows):
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads),
                      *("| " + " | ".join(row) + " |" for row in rows)])


def cells(row):
    if row["status"] == "done":
        return [cell(row) for _, cell in COLUMNS]
    text = row.get("reason", row["status"]).replace("|", "/").replace("\n", " ")
    known = [cell(row) for _, cell in COLUMNS[:PLANNED]]
    return known + [f"{row['status']}: {text}" if row["status"] == "failed" else text] + [""] * (len(COLUMNS) - PLANNED - 1)


# Limits of the machine that a run stores in its provenance.json: title, key, digits behind the point, scale.
LIMITS = (("GEMM float, GFLOP/s", "gemm_flops_per_second", 1, 1e-9), ("double", "gemm_double_flops_per_second", 1, 1e-9),
          ("triad, GB/s", "memory_bytes_per_second", 1, 1e-9), ("message, us", "mpi_latency_seconds", 2, 1e6),
          ("GB/s", "mpi_bytes_per_second", 2, 1e-9), ("HDF5 write, GB/s", "hdf5_write_bytes_per_second", 2, 1e-9),
          ("read", "hdf5_read_bytes_per_second", 2, 1e-9))


def limits_text(rows):
    """Where each row was measured, and against which limits of rank 0; empty where none were stored."""
    lines = []
    for row in rows:
        origin = row.get("provenance", {})
        limits = origin.get("limits")
        if limits:
            lines.append([row["sweep"], f"{row['ranks']} x {row['threads']}", origin["host"], origin["commit"], origin["backend"],
                          *(f"{scale * limits[key]:.{digits}f}" if key in limits else "-" for _, key, digits, scale in LIMITS)])
    heads = ["sweep", "ranks x threads", "host", "commit", "backend", *(title for title, *_ in LIMITS)]
    return "\n\nLimits of the machine in the same processes:\n\n" + markdown(heads, lines) if lines else ""


def table(options):
    """`perf/scaling table`: table.jsonl and table.md in the folder, the latter printed too."""
    rows = collect(options.results, options.fastest)
    text = markdown([name for name, _ in COLUMNS], [cells(row) for row in rows])
    if any(row.get("oversubscribed") for row in rows):
        text += "\n\n\\* more threads than cores"
    text += limits_text(rows)
    with open(os.path.join(options.results, "table.jsonl"), "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    with open(os.path.join(options.results, "table.md"), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    print(text)
