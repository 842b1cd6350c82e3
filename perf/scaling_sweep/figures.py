# SPDX-License-Identifier: Apache-2.0
"""The plots of a sweep, by matplotlib, or as plain SVG where matplotlib is missing."""
import dataclasses
import json
import os

import svg_plot
from context_sweep import Failure

from . import analysis
from .collection import collect
from .limits import read_limits


@dataclasses.dataclass
class Series:
    name: str
    points: list          # (x, y)
    style: str = "dots"   # dots: a line with dots, dashed: a dashed line, points: dots alone


@dataclasses.dataclass
class Figure:
    file: str
    title: str
    x: str
    y: str
    x_base: object        # base of a logarithmic axis, None for a linear one
    y_base: object
    x_text: object
    y_text: object
    series: list


def plain(value):
    return f"{value:,.6g}".replace(",", " ")


def binary(value):
    for unit, factor in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if value >= factor:
            return f"{value / factor:.4g} {unit}"
    return f"{value:g}"


def ways(row):
    return f"{row['deck']}, {row['ranks']} x {row['threads']}"


def over_length(rows):
    groups = {}
    for row in analysis.done(rows, "length"):
        groups.setdefault(ways(row), {})[row["context"]] = row
    ordered = {name: [group[context] for context in sorted(group)] for name, group in sorted(groups.items())}
    if not ordered:
        return []
    throughput = [Series(name, [(r["context"], r["bytes_per_second"]) for r in group]) for name, group in ordered.items()]
    memory = []
    for name, group in ordered.items():
        memory.append(Series(name, [(r["context"], r["peak_memory"]) for r in group]))
        memory.append(Series(name + ", predicted", [(r["context"], r["predicted_peak"]) for r in group], "dashed"))
    title = "(ranks x threads)"
    return [Figure("throughput", f"Training throughput {title}", "bytes of context", "bytes per second", 2, None, binary,
                   plain, throughput),
            Figure("memory", f"Peak memory of a rank {title}", "bytes of context", "bytes", 2, 2, binary, binary, memory)]


def scaling(rows):
    groups = {}
    for row in analysis.done(rows):
        if row["sweep"] in ("strong", "weak"):
            name = f"{row['sweep']}, {row['deck']}, {row['threads']} threads"
            groups.setdefault(name, []).append((row["ranks"], analysis.efficiency(rows, row)))
    series = [Series(name, sorted(set(points))) for name, points in sorted(groups.items())]
    if not series:
        return []
    ranks = sorted({x for one in series for x, _ in one.points})
    series.append(Series("ideal", [(ranks[0], 1.0), (ranks[-1], 1.0)], "dashed"))
    return [Figure("efficiency", "Scaling efficiency", "ranks", "efficiency", 2, None, plain, plain, series)]


def least_traffic(row):
    """Bytes that a step of one rank moves at least between memory and cores, were caches perfect: weights read twice and
    gradients read and written once per micro-batch, what backward needs written and read once, and for the optimiser four
    arrays read and three written."""
    info = row["info"]
    batch = next((int(c.partition("=")[2]) for c in row["command"] if c.startswith("train.gradient_accumulate_every=")), 1)
    positions = row["windows"] * row["context"]
    tape = sum(stage["tape"] * stage["layers"] * positions / stage["bytes_per_position"] for stage in info["stages"])
    return batch * 16 * info["parameters"] + 2 * tape + 28 * info["parameters"]


def kernel_points(path):
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        context = content["context"]
        limit = (1e9 * float(context["gemm_float_gflops"]), 1e9 * float(context["triad_gbytes_per_s"]))
        points = [(entry["GFLOP/s"] / entry["GB/s"], entry["GFLOP/s"]) for entry in content["benchmarks"]
                  if entry.get("run_type") != "aggregate" and entry.get("GB/s", 0) > 0 and entry.get("GFLOP/s", 0) > 0]
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from error
    except (KeyError, ValueError) as error:
        raise Failure(f"{path} is no result of bench_kernels: {error!r}") from error
    return limit, points


def roofline(rows, limits, kernels):
    """Rates against operations per byte, below what memory and cores allow."""
    series, roofs = [], {}
    for line in limits:
        if line["ranks"] == 1:
            roofs[f"limit, {line['threads']} threads"] = (line["gemm_flops"], line["triad_bytes_per_second"])
    for path in kernels:
        limit, points = kernel_points(path)
        roofs[f"limit, {os.path.basename(path)}"] = limit
        series.append(Series(f"kernels, {os.path.basename(path)}", points, "points"))
    groups = {}
    for row in analysis.done(rows):
        if row["ranks"] == 1 and row["sweep"] not in ("alone", "profile"):
            intensity = row["flops_per_second"] * row["step_seconds"] / least_traffic(row)
            groups.setdefault(f"steps, {row['deck']}, {row['threads']} threads", []).append(
                (intensity, row["flops_per_second"] / 1e9))
    series += [Series(name, sorted(set(points)), "points") for name, points in sorted(groups.items())]
    if not series or not roofs:
        return []
    seen = [x for one in series for x, _ in one.points]
    for name, (flops, bandwidth) in roofs.items():
        ridge = flops / bandwidth
        ends = [min(*seen, ridge / 10), ridge, max(*seen, ridge * 10)]
        series.append(Series(name, [(x, min(flops, bandwidth * x) / 1e9) for x in ends], "dashed"))
    return [Figure("roofline", "Roofline", "operations per byte of memory traffic", "GFLOP/s", 10, 10, plain, plain, series)]


def svg(figure, path):
    xs = [x for one in figure.series for x, _ in one.points]
    ys = [y for one in figure.series for _, y in one.points]
    panel = svg_plot.Panel(svg_plot.TOP, f"{figure.title}: {figure.y} against {figure.x}",
                           svg_plot.Axis(xs, figure.x_text, figure.x_base), svg_plot.Axis(ys, figure.y_text, figure.y_base))
    lines, named = panel.frame(), []
    for number, one in enumerate(figure.series):
        colour = svg_plot.COLOURS[number % len(svg_plot.COLOURS)]
        lines += panel.line(one.points, colour, dashed=one.style == "dashed", joined=one.style != "points")
        named.append((one.name, colour, one.style == "dashed"))
    below, height = svg_plot.legend(panel.top + svg_plot.HEIGHT + 34, named)
    with open(path, "w", encoding="utf-8") as file:
        file.write(svg_plot.document(height, lines + below))


def with_matplotlib(figure, path):
    import matplotlib  # pylint: disable=import-outside-toplevel
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "strata", "path.simplify": True})
    from matplotlib import pyplot, ticker  # pylint: disable=import-outside-toplevel
    image, axes = pyplot.subplots(figsize=(7.6, 4.4), layout="constrained")
    for one in figure.series:
        style = {"dots": {"marker": "o", "markersize": 4}, "dashed": {"linestyle": "--"},
                 "points": {"marker": "o", "markersize": 4, "linestyle": "none"}}[one.style]
        axes.plot([x for x, _ in one.points], [y for _, y in one.points], label=one.name, **style)
    for axis, base, text in ((axes.xaxis, figure.x_base, figure.x_text), (axes.yaxis, figure.y_base, figure.y_text)):
        if base:
            (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log", base=base)
            axis.set_minor_formatter(ticker.NullFormatter())
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _, text=text: text(value)))
    if figure.y_base is None:
        axes.set_ylim(bottom=0)
    axes.set(title=figure.title, xlabel=figure.x, ylabel=figure.y)
    axes.grid(color="#ddd")
    axes.legend(fontsize="small")
    image.savefig(path, dpi=120, metadata={"Date": None} if path.endswith(".svg") else None)
    pyplot.close(image)


def has_matplotlib():
    try:
        import matplotlib  # noqa: F401  pylint: disable=import-outside-toplevel,unused-import
    except ImportError:
        return False
    return True


def plot(options):
    """`perf/scaling plot`."""
    rows = collect(options.results, options.fastest)
    figures = over_length(rows) + scaling(rows) + roofline(rows, read_limits(options.results), options.kernels)
    if not figures:
        raise Failure(f"nothing in {options.results} can be drawn yet")
    draw, extension = svg, "svg"
    if not options.plain and has_matplotlib():
        draw, extension = with_matplotlib, options.format
    elif options.format != "svg":
        raise Failure(f"{options.format} takes matplotlib (Debian: python3-matplotlib; PyPI: matplotlib)")
    folder = options.output or options.results
    os.makedirs(folder, exist_ok=True)
    for figure in figures:
        path = os.path.join(folder, f"{figure.file}.{extension}")
        draw(figure, path)
        print(path)
