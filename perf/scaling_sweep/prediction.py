# SPDX-License-Identifier: Apache-2.0
"""A model of training steps on many ranks (doc/scaling.md, "Prediction"). Everything it needs comes from one rank and from
bench_comm, or from the command line; runs on more ranks are only printed beside it."""
import dataclasses
import math

from context_sweep import Failure

from .analysis import done
from .collection import collect, markdown
from .limits import messages, read_limits


@dataclasses.dataclass
class Model:
    window_seconds: float      # forward and backward of one window on one rank
    optimizer_seconds: float   # of a step; every rank updates all parameters
    batch: int                 # windows of a micro-batch
    threads: int
    inner_bytes: float         # gradients that are final before the backward pass of the outermost stage
    outer_bytes: float         # gradients that are final at the end
    outer_share: float         # of the work, in the outermost stage
    latency: float             # seconds of a message
    bandwidth: float           # bytes per second between two ranks
    bucket_bytes: float
    jitter: float              # standard deviation of a step's time over its mean, from rank to rank
    overlap: float             # share of the outermost stage's backward pass in which messages make progress, 0 to 1
    sharing: float             # time of the same work with a node full of ranks, over that of one rank alone
    ranks_per_node: int
    cores_per_node: int
    algorithm: str = "ring"


def sum_seconds(model, size, ranks):
    """Sum of `size` bytes over the ranks, bucket by bucket.

    ring: reduce-scatter and all-gather around a ring, 2 (n - 1) messages of size / n. halving: the same amount of data in
    2 log2(n) messages, recursive halving and doubling."""
    if ranks == 1 or size == 0:
        return 0.0
    hops = {"ring": 2 * (ranks - 1), "halving": 2 * math.ceil(math.log2(ranks))}
    count = hops[model.algorithm] if model.algorithm != "best" else min(hops.values())
    buckets = math.ceil(size / model.bucket_bytes)
    return buckets * count * model.latency + 2 * (ranks - 1) / ranks * size / model.bandwidth


def slowest(ranks):
    """Expected largest of so many normal numbers, in standard deviations (Blom, 1958)."""
    if ranks == 1:
        return 0.0
    target = (ranks - 0.375) / (ranks + 0.25)
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        if (1 + math.erf(middle / math.sqrt(2))) / 2 < target:
            low = middle
        else:
            high = middle
    return low


def step(model, ranks, windows, on_node=None):
    """Seconds of a step, by part. on_node: ranks that share a node, where that is not what a node has."""
    on_node = on_node or min(ranks, model.ranks_per_node)
    full = min(1.0, (on_node - 1) / (model.ranks_per_node - 1)) if model.ranks_per_node > 1 else 0.0
    micro_batches = max(1, windows // model.batch)
    crowd = max(1.0, on_node * model.threads / model.cores_per_node)  # more threads than cores take turns
    factor = (1 + (model.sharing - 1) * full) * crowd
    compute = windows * model.window_seconds * factor
    hidden = model.overlap * compute / micro_batches * model.outer_share * 2 / 3  # backward is two thirds of the work
    exposed = max(0.0, sum_seconds(model, model.inner_bytes, ranks) - hidden) + sum_seconds(model, model.outer_bytes, ranks)
    parts = {"compute": compute, "optimiser": model.optimizer_seconds * crowd, "messages": exposed,
             "imbalance": compute * model.jitter * slowest(ranks)}
    return {**parts, "step": sum(parts.values())}


def base_row(rows, options):
    candidates = [row for row in done(rows) if row["sweep"] in ("strong", "weak") and row["ranks"] == 1
                  and options.deck in (None, row["deck"]) and options.threads in (None, row["threads"])]
    if not candidates:
        raise Failure("prediction begins with a run on one rank; there is none (sweeps strong or weak, --ranks 1,...)")
    return min(candidates, key=lambda row: (row["sweep"] != "weak", row["threads"], row["windows"]))


def batch_of(row):
    return next(int(word.partition("=")[2]) for word in row["command"] if word.startswith("train.batch_size="))


def make(options, rows, limits):
    row = base_row(rows, options)
    stages, parameters = row["info"]["stages"], row["info"]["parameters"]
    work = [stage["layer_parameters"] / stage["bytes_per_position"] for stage in stages]
    outer = 4 * stages[0]["parameters"] if len(stages) > 1 else 4 * parameters
    measured = messages(limits)
    if measured is None and (options.latency is None or options.bandwidth is None):
        raise Failure("latency and bandwidth of messages are not known: measure them with `perf/scaling limits`, or give "
                      "--latency and --bandwidth")
    latency, bandwidth = measured or (0.0, 0.0)
    beside = [r for r in done(rows, "alone") if r["deck"] == row["deck"] and r["threads"] == row["threads"]
              and r["windows"] == row["windows"] and r["context"] == row["context"] and not r["oversubscribed"]]
    calm = row["step_seconds"] - row["optimizer_seconds"]
    together = max(beside, key=lambda r: r["ranks"]) if beside else None
    sharing = (together["step_seconds"] - together["optimizer_seconds"]) / calm if together else 1.0
    return row, Model(
        window_seconds=options.window_seconds or calm / row["windows"], optimizer_seconds=row["optimizer_seconds"],
        batch=batch_of(row), threads=row["threads"], inner_bytes=max(0.0, 4 * parameters - outer), outer_bytes=outer,
        outer_share=work[0] / sum(work) if len(stages) > 1 else 1.0,
        latency=latency if options.latency is None else options.latency,
        bandwidth=bandwidth if options.bandwidth is None else options.bandwidth,
        bucket_bytes=options.bucket, jitter=row["step_spread"] if options.jitter is None else options.jitter,
        overlap=options.overlap, sharing=options.sharing or sharing,
        ranks_per_node=options.ranks_per_node or (together["ranks"] if together else max(1, options.cores // row["threads"])),
        cores_per_node=options.cores, algorithm=options.all_reduce)


def predict_table(model, rows, row, sweep, ranks, windows):
    """One sweep: predicted parts and efficiency, and what was measured."""
    heads = ["ranks", "step, s", *("compute", "optimiser", "messages", "imbalance"), "efficiency", "bytes/s",
             "measured step, s", "measured efficiency", "prediction is off by", ""]
    measured = {r["ranks"]: r for r in done(rows, sweep) if r["deck"] == row["deck"] and r["context"] == row["context"]
                and r["threads"] == row["threads"]
                and (r["step_bytes"] == windows * r["context"] if sweep == "strong" else r["windows"] == windows)}
    lines, left_out, start = [], [], None
    for n in ranks:
        if sweep == "strong" and windows % n:
            left_out.append(n)
            continue
        share = windows // n if sweep == "strong" else windows
        found = measured.get(n)
        crowded = found is not None and found["oversubscribed"]
        parts = step(model, n, share, n if crowded else None)
        rate = n * share * row["context"] / parts["step"]
        start = start or rate / n
        line = [str(n), *(f"{parts[name]:.4g}" for name in ("step", "compute", "optimiser", "messages", "imbalance")),
                f"{rate / n / start:.3f}", f"{rate:.4g}"]
        if found:
            first = measured[min(measured)]
            reached = found["bytes_per_second"] / n / (first["bytes_per_second"] / first["ranks"])
            line += [f"{found['step_seconds']:.4g}", f"{reached:.3f}", f"{100 * (parts['step'] / found['step_seconds'] - 1):+.1f} %",
                     "measured" + (", more threads than cores" if crowded else "")]
        else:
            line += ["", "", "", "prediction only"]
        lines.append(line)
    return markdown(heads, lines) + (f"\n\n{windows} windows cannot be dealt to {', '.join(map(str, left_out))} ranks evenly."
                                     if left_out else "")


def predict(options):
    """`perf/scaling predict`."""
    rows = collect(options.results, options.fastest)
    row, model = make(options, rows, read_limits(options.results))
    print(f"Base: {row['deck']} on 1 rank x {row['threads']} threads, {row['windows']} windows of {row['context']} bytes in a "
          f"step; {row['info']['parameters']} parameters.\n")
    print(f"- {model.window_seconds:.4g} s of forward and backward per window, {model.optimizer_seconds:.3g} s of optimiser per step")
    print(f"- gradients of {(model.inner_bytes + model.outer_bytes) / 1e6:.1f} MB, of which {model.inner_bytes / 1e6:.1f} MB are "
          f"ready before the outermost stage's backward pass, in buckets of {model.bucket_bytes / 1e6:.3g} MB, by {model.algorithm}")
    print(f"- messages: latency {1e6 * model.latency:.3g} us, {model.bandwidth / 1e9:.3g} GB/s; overlap {model.overlap:g}, "
          f"outermost stage {100 * model.outer_share:.0f} % of the work")
    print(f"- jitter {100 * model.jitter:.2g} % of a step; nodes of {model.ranks_per_node} ranks and {model.cores_per_node} cores; "
          f"a full node takes {model.sharing:.3f} times as long as one rank alone\n")
    strong = options.global_windows or max([r["windows"] * r["ranks"] for r in done(rows, "strong") if r["deck"] == row["deck"]],
                                           default=0)
    print("Weak scaling, " + f"{row['windows']} windows per rank:\n")
    print(predict_table(model, rows, row, "weak", options.ranks, row["windows"]))
    most = max(options.ranks)
    for total in sorted({strong or most, strong if options.global_windows else max(strong, most)}):
        print(f"\nStrong scaling, {total} windows in a step:\n")
        print(predict_table(model, rows, row, "strong", options.ranks, total))
