# SPDX-License-Identifier: Apache-2.0
"""Which runs a sweep consists of.

A case is one run of `strata train`: a deck, changes to it, ranks, threads. Its id is made of all of these, so that a case
that several sweeps share runs once, and the same command finds again what has run.
"""
import dataclasses
import hashlib
import json
import os
import re

from context_sweep import Failure, size, strata

SWEEPS = ("strong", "weak", "length", "model", "chunk")
AXES = {"strong": "ranks", "weak": "ranks", "alone": "ranks", "profile": "ranks", "length": "bytes of context", "model": "parameters",
        "chunk": "positions in a time chunk"}


@dataclasses.dataclass
class Case:
    deck: str            # path
    changes: list        # section.key=value
    ranks: int
    threads: int
    steps: int
    windows: int         # of one rank in a step
    context: int         # bytes of a window
    repetition: int = 1
    alone: bool = False  # `ranks` programs of one rank side by side, which send each other nothing
    profile: bool = False  # measures where its time goes, and is slower for it
    set: list = dataclasses.field(default_factory=list)  # of `changes`, those asked for
    id: str = ""

    def name_it(self, deck_text):
        name = os.path.splitext(os.path.basename(self.deck))[0]
        parts = [deck_text, self.changes, self.ranks, self.threads, self.steps, self.repetition, self.alone, self.profile]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]
        self.id = f"{name}-r{self.ranks}-t{self.threads}{'-alone' * self.alone}{'-profile' * self.profile}-{digest}"
        return self


def number_of(text, key):
    """The value of a key in a deck that this program needs before `strata` reads it; 1 without it."""
    text = re.sub(r"#.*", "", text)
    found = re.search(rf"\b{key}:\s*([0-9][0-9_.eE+]*)", text)
    return int(float(found.group(1).replace("_", ""))) if found else 1


def change_of(changes, key, default):
    for change in changes:
        name, _, value = change.partition("=")
        if name == f"train.{key}":
            default = int(float(value.replace("_", "")))
    return default


def split(windows, most):
    """A step's windows of one rank as (batch_size, gradient_accumulate_every), at most `most` in a micro-batch."""
    batch = next(b for b in range(min(windows, max(most, 1)), 0, -1) if windows % b == 0)
    return batch, windows // batch


def lengths(text, longest):
    """Lengths of context: 1ki,4ki,1m; or 1ki..fit, 4ki..1m: times 4 up to what fits or is named."""
    result = []
    for part in text.split(","):
        low, dots, high = part.partition("..")
        if not dots:
            result.append(size(low))
            continue
        end = longest() if high == "fit" else min(size(high), longest())
        value = size(low)
        if value > end:
            raise Failure(f"not even {value} bytes of context fit; {end} do")
        while value <= end:
            result.append(value)
            value *= 4
    return sorted(set(result))


class Planner:
    """Plans for one deck. options: those of the command line (perf/scaling)."""

    def __init__(self, options):
        self.options = options
        self.deck = os.path.abspath(options.deck)
        try:
            with open(self.deck, encoding="utf-8") as file:
                self.text = file.read()
        except OSError as error:
            raise Failure(f"cannot read the deck {options.deck}: {error.strerror}") from error
        self.changes = [*options.set, f"io.dataset={os.path.abspath(options.dataset)}"]
        self.batch = change_of(options.set, "batch_size", number_of(self.text, "batch_size"))
        accumulate = change_of(options.set, "gradient_accumulate_every", number_of(self.text, "gradient_accumulate_every"))
        self.windows = options.windows or self.batch * accumulate
        self.facts = self.info()
        self.context = self.facts["input_seq_len"]
        self.lines = []

    def info(self, *more):
        return strata(self.options.strata, "info", self.deck, *self.changes, *more)

    def longest(self):
        """Bytes of context that fit by the plan of `strata info`, in what a rank may have of this machine's memory."""
        memory = self.options.memory or int(self.facts["memory_per_rank"]["available_bytes"] / max(self.options.ranks))
        plan = self.info("train.batch_size=1", "--memory", str(memory))["memory_per_rank"]
        fit = max(policy["longest_context"] for policy in plan["policies"].values())
        return min(fit, strata(self.options.strata, "info", self.options.dataset)["train"]["bytes"])

    def add(self, sweep, value, ranks, threads, windows, context=None, changes=(), most=None, alone=False, profile=False):
        context = context or self.context
        batch, accumulate = split(windows, most or self.batch)
        steps = self.options.steps
        settings = [*self.changes, *changes, f"params.input_seq_len={context}", f"train.batch_size={batch}",
                    f"train.gradient_accumulate_every={accumulate}",
                    f"train.target_elements={steps * windows * (1 if alone else ranks)}",
                    "train.target_elements_strategy=batch", "train.max_eval_steps=1", "io.log_train_loss_amount=1000000",
                    "io.checkpoint_every=0", "io.validate_amount=1", "io.num_models_to_save=0"]
        for repetition in range(1, (1 if profile else self.options.repetitions) + 1):
            case = Case(self.deck, settings, ranks, threads, steps, windows, context, repetition, alone, profile, self.options.set)
            self.lines.append({"sweep": sweep, "value": value, "case": dataclasses.asdict(case.name_it(self.text))})

    def plan(self):
        options = self.options
        for sweep in options.sweeps:
            for threads in options.threads:
                for ranks in options.ranks:
                    getattr(self, sweep)(ranks, threads)
        return self.lines

    def strong(self, ranks, threads):
        total = self.options.global_windows or self.windows * max(self.options.ranks)
        if total % ranks:
            raise Failure(f"{total} windows in a step cannot be dealt to {ranks} ranks evenly; set --global-windows")
        self.add("strong", ranks, ranks, threads, total // ranks)
        self.apart(ranks, threads, total // ranks)

    def weak(self, ranks, threads):
        self.add("weak", ranks, ranks, threads, self.windows)
        self.apart(ranks, threads, self.windows)

    def apart(self, ranks, threads, windows):
        """The same work without messages, which tells what ranks on one node cost each other otherwise, and profiled."""
        if ranks > 1 and self.options.alone:
            self.add("alone", ranks, ranks, threads, windows, alone=True)
        if self.options.profile:
            self.add("profile", ranks, ranks, threads, windows, profile=True)

    def length(self, ranks, threads):
        """A step has as many bytes for each length as for the deck's, while that is a window at least."""
        for context in lengths(self.options.lengths, self.longest):
            windows = max(1, self.windows * self.context // context)
            most = max(1, self.batch * self.context // context)
            self.add("length", context, ranks, threads, windows, context, most=most)

    def model(self, ranks, threads):
        for factor in self.options.widths:
            widths = [max(1, round(stage["width"] * factor)) for stage in self.facts["stages"]]
            changes = [f"params.hidden_dims.{stage}={width}" for stage, width in enumerate(widths)]
            self.add("model", factor, ranks, threads, self.windows, changes=changes)

    def chunk(self, ranks, threads):
        chunks = self.options.chunks
        if not chunks:
            own = self.facts["memory_per_rank"]["outer_chunk_positions"]
            positions = -(-self.context // self.facts["stages"][0]["bytes_per_position"])
            chunks = sorted({min(positions, max(1, own * part // 4)) for part in (1, 2, 4, 8, 16)})
        for chunk in chunks:
            self.add("chunk", chunk, ranks, threads, self.windows, changes=[f"train.outer_chunk={chunk}"])


def read_lines(path):
    try:
        with open(path, encoding="utf-8") as file:
            lines = list(enumerate(file, 1))
    except FileNotFoundError:
        return []
    result = []
    for number, line in lines:
        try:
            result.append(json.loads(line))
        except ValueError as error:
            raise Failure(f"{path}:{number} is no JSON: {error}") from error
    return result


def append_lines(path, lines):
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def read_plan(folder):
    plan = read_lines(os.path.join(folder, "plan.jsonl"))
    if not plan:
        raise Failure(f"nothing is planned in {folder}; `perf/scaling run` and `submit` plan")
    return [{**line, "case": Case(**line["case"])} for line in plan]


def extend_plan(folder, lines):
    """Adds what is not planned yet. Returns how many runs are new."""
    os.makedirs(os.path.join(folder, "results"), exist_ok=True)
    path = os.path.join(folder, "plan.jsonl")
    known = {(line["sweep"], line["case"]["id"]) for line in read_lines(path)}
    new = []
    for line in lines:
        key = line["sweep"], line["case"]["id"]
        if key not in known:
            known.add(key)
            new.append(line)
    append_lines(path, new)
    return len(new)


def cases_of(plan, ranks=None, threads=None, repetition=None):
    """Each case once, repetition by repetition, so that a change of the machine's speed meets all cases alike."""
    cases = {line["case"].id: line["case"] for line in plan}.values()
    chosen = [case for case in cases if ranks in (None, case.ranks) and threads in (None, case.threads)
              and repetition in (None, case.repetition)]
    return sorted(chosen, key=lambda case: case.repetition)
