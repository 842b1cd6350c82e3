# SPDX-License-Identifier: Apache-2.0
"""Efficiency of a sweep, where the rest of the time went, and fits.

Parts of a step are taken from differences between runs that differ in one thing (doc/scaling.md, "Where the time goes"):
one rank alone, n programs of one rank side by side, n ranks.
"""
import math

from .collection import collect, markdown
from .limits import least_squares


def done(rows, sweep=None):
    return [row for row in rows if row["status"] == "done" and sweep in (None, row["sweep"])]


def like(rows, row, sweep=None, **wanted):
    """The measured row of the same deck and length with these values; None when there is none."""
    same = {"deck": row["deck"], "context": row["context"], "threads": row["threads"], "windows": row["windows"], **wanted}
    return next((r for r in done(rows, sweep) if (sweep or r["sweep"] in ("strong", "weak"))
                 and all(r[key] == value for key, value in same.items())), None)


def first_of(rows, row):
    """What efficiency is relative to: the fewest ranks of the same sweep, with as many threads."""
    same = [r for r in done(rows, row["sweep"]) if r["deck"] == row["deck"] and r["threads"] == row["threads"]
            and r["context"] == row["context"]
            and (r["step_bytes"] == row["step_bytes"] if row["sweep"] == "strong" else r["windows"] == row["windows"])]
    return min(same, key=lambda r: r["ranks"])


def least_cores(rows, row):
    same = [r for r in done(rows, row["sweep"]) if r["deck"] == row["deck"] and r["context"] == row["context"]]
    if row["sweep"] == "strong":
        same = [r for r in same if r["step_bytes"] == row["step_bytes"]]
    else:
        same = [r for r in same if r["windows"] == row["windows"]]
    return min(same, key=lambda r: (r["ranks"] * r["threads"], r["ranks"]))


def core_efficiency(rows, row):
    """Throughput of a core over that of the fewest, and its two factors: the GEMM peak of a core, which is the machine's, and
    the share of it that the program reaches."""
    base = least_cores(rows, row)
    cores, base_cores = row["ranks"] * row["threads"], base["ranks"] * base["threads"]
    return (row["bytes_per_second"] / cores / (base["bytes_per_second"] / base_cores),
            row["gemm_flops"] / cores / (base["gemm_flops"] / base_cores), row["gemm_fraction"] / base["gemm_fraction"])


def efficiency(rows, row):
    base = first_of(rows, row)
    return row["bytes_per_second"] / row["ranks"] / (base["bytes_per_second"] / base["ranks"])


def losses(rows, row):
    """What a step of n ranks takes longer than ideal, as fractions of it that add up to 1 - efficiency: {cause: fraction}.
    Causes that cannot be told apart for want of a run are together in `rest`."""
    base = first_of(rows, row)
    share = row["windows"] / base["windows"]  # of the work of a rank
    ideal = base["step_seconds"] * share
    lost = row["step_seconds"] - ideal
    parts = {"optimiser": row["optimizer_seconds"] - base["optimizer_seconds"] * share}
    single = like(rows, row, ranks=1)
    if single and row["sweep"] == "strong" and base["ranks"] == 1:
        work = base["step_seconds"] - base["optimizer_seconds"]
        parts["smaller share per rank"] = single["step_seconds"] - single["optimizer_seconds"] - work * share
    apart = like(rows, row, "alone", ranks=row["ranks"])
    if apart:
        calm = apart["step_seconds"] - apart["optimizer_seconds"]
        parts["imbalance"] = apart["slowest_seconds"] - apart["step_seconds"]
        parts["messages"] = row["step_seconds"] - row["optimizer_seconds"] - calm - parts["imbalance"]
        if single:
            parts["sharing the machine"] = calm - (single["step_seconds"] - single["optimizer_seconds"])
    parts["rest"] = lost - sum(parts.values())
    if abs(parts["rest"]) < 1e-9 * row["step_seconds"]:
        del parts["rest"]
    return {cause: seconds / row["step_seconds"] for cause, seconds in parts.items()}


PARTS = ("kernels", "MPI", "between kernels", "reading data", "checkpoints", "unaccounted")


def profile_table(rows):
    """Shares of the whole run, means over the ranks, and how far the busiest rank is from the mean."""
    heads = ["profiled", "deck", "ranks x threads", *PARTS, "slowest rank's kernels above the mean"]
    lines = []
    for row in done(rows, "profile"):
        spread = row["profile"]["over_ranks"]
        whole = spread["all"]["mean"] if "all" in spread else row["profile"]["seconds"]
        parts = {name: (spread[name]["mean"] if name in spread else row["profile"]["parts"].get(name)) for name in PARTS}
        excess = spread["kernels"]["most"] - spread["kernels"]["mean"] if "kernels" in spread else None
        lines.append([f"{row['windows']} windows per rank", row["deck"], f"{row['ranks']} x {row['threads']}",
                      *(percent(None if part is None else part / whole) for part in parts.values()),
                      percent(None if excess is None else excess / whole)])
    return markdown(heads, lines) if lines else ""


CAUSES = ("smaller share per rank", "sharing the machine", "imbalance", "messages", "optimiser", "rest")


def percent(value):
    return "-" if value is None else f"{100 * value:.1f} %"


def efficiency_table(rows):
    heads = ["sweep", "deck", "ranks x threads", "step, s", "efficiency", "per core", "= GEMM peak", "x share of it", *(f"lost: {cause}" for cause in CAUSES)]
    lines = []
    for row in done(rows):
        if row["sweep"] not in ("strong", "weak"):
            continue
        several = row["ranks"] > first_of(rows, row)["ranks"]
        parts = losses(rows, row) if several else {}
        lines.append([row["sweep"], row["deck"],
                      f"{row['ranks']} x {row['threads']}" + (" *" if row["oversubscribed"] else ""),
                      f"{row['step_seconds']:.4g}", f"{efficiency(rows, row):.3f}", *(f"{factor:.3f}" for factor in core_efficiency(rows, row)),
                      *(percent(parts.get(cause)) for cause in CAUSES)])
    return markdown(heads, lines) if lines else ""


def groups_of(rows, sweep):
    groups = {}
    for row in done(rows, sweep):
        if row["oversubscribed"] and sweep in ("strong", "weak"):
            continue  # another machine, so to say
        key = (row["deck"], row["ranks"] if sweep not in ("strong", "weak") else 0, row["threads"],
               row["context"] if sweep != "length" else 0,
               {"strong": row["step_bytes"], "weak": row["windows"]}.get(sweep, 0))
        groups.setdefault(key, {})[row["value"]] = row
    return [(key, [values[value] for value in sorted(values)]) for key, values in groups.items() if len(values) > 1]


def freedom(points):
    return " (through two points, exactly)" if len(points) == 2 else ""


def fits(rows):
    """Sentences."""
    found = []
    for (deck, _, threads, _, _), group in groups_of(rows, "strong"):
        points = [(1 / r["ranks"], r["step_seconds"]) for r in group]
        serial, divided = least_squares(points)
        text = f"strong, {deck}, {threads} threads: step = {serial:.4g} s + {divided:.4g} s / ranks{freedom(points)}"
        if divided > 0:
            text += f"; the part that ranks do not divide is {100 * serial / (serial + divided):.1f} % of a step on one rank"
        found.append(text)
    for (deck, _, threads, _, _), group in groups_of(rows, "weak"):
        points = [((r["ranks"] - 1) / r["ranks"], r["step_seconds"]) for r in group]
        constant, growing = least_squares(points)
        gradient = 2 * 4 * group[0]["info"]["parameters"]
        text = f"weak, {deck}, {threads} threads: step = {constant:.4g} s + {growing:.4g} s (ranks - 1) / ranks{freedom(points)}"
        if growing > 0:
            text += f"; were all of the growth messages, they would travel at {gradient / growing / 1e9:.3g} GB/s"
        found.append(text)
    for (deck, ranks, threads, _, _), group in groups_of(rows, "length"):
        name = f"length, {deck}, {ranks} ranks x {threads} threads"
        per_byte = [(r["context"], (r["step_seconds"] - r["optimizer_seconds"]) / r["step_bytes"]) for r in group]
        constant, growing = least_squares(per_byte)
        found.append(f"{name}: time per byte = {1e6 * constant:.4g} us + {1e12 * growing:.3g} us per million bytes of "
                     f"context{freedom(per_byte)}, time of a window ~ context^{exponent(group):.3f}")
        memory = [(r["context"], r["peak_memory"]) for r in group]
        constant, growing = least_squares(memory)
        found.append(f"{name}: peak memory = {constant / 1e6:.1f} MB + {growing:.3g} bytes per byte of context{freedom(memory)}")
    for (deck, ranks, threads, _, _), group in groups_of(rows, "model"):
        small, large = group[0], group[-1]
        rate = math.log(large["bytes_per_second"] / small["bytes_per_second"]) / \
            math.log(large["info"]["parameters"] / small["info"]["parameters"])
        found.append(f"model, {deck}, {ranks} ranks x {threads} threads: bytes/s ~ parameters^{rate:.2f}, "
                     f"{100 * small['gemm_fraction']:.0f} to {100 * large['gemm_fraction']:.0f} % of the GEMM peak")
    for (deck, ranks, threads, _, _), group in groups_of(rows, "chunk"):
        best = max(group, key=lambda r: r["bytes_per_second"])
        found.append(f"chunk, {deck}, {ranks} ranks x {threads} threads: fastest with {best['value']} positions in a chunk, "
                     f"{best['bytes_per_second']:.0f} bytes/s and {best['peak_memory'] / 1e6:.0f} MB")
    return found


def exponent(group):
    """Exponent of the time of a window against its length."""
    points = [(math.log(r["context"]), math.log((r["step_seconds"] - r["optimizer_seconds"]) * r["context"] / r["step_bytes"]))
              for r in group]
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def fit(options):
    """`perf/scaling fit`."""
    rows = collect(options.results, options.fastest)
    table = efficiency_table(rows)
    if table:
        print(table + "\n")
        if any(row.get("oversubscribed") for row in rows):
            print("\\* more threads than cores\n")
    profiled = profile_table(rows)
    if profiled:
        print(profiled + "\n")
    for sentence in fits(rows):
        print("- " + sentence)
    failed = [row for row in rows if row["failed"]]
    if failed:
        print(f"\n{len(failed)} rows of the table have failed runs")
    unfinished = [row for row in rows if row["not_run"]]
    if unfinished:
        print(f"\n{len(unfinished)} rows of the table have runs still to do")
