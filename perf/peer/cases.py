# SPDX-License-Identifier: Apache-2.0
"""What is compared: models by name, at lengths of context, with the deck that both programs read."""
import argparse
import dataclasses
import math

from context_sweep import size

MODELS = ("T+T", "T+T+T", "Mamba-1+T")
PATCH = 8  # bytes of an inner patch
HEAD = 32  # width of an attention head
STATE = 16  # of Mamba-1
MEASURED_BYTES = 32 * 1024  # that a repetition's measured steps read, within the bounds below
MOST_STEPS = 16


@dataclasses.dataclass(frozen=True)
class Case:
    """A model at a length. chunks: into how many the package's checkpointing cuts each inner stage; 0: none."""
    model: str
    length: int
    chunks: int = 0
    width: int = 384  # of the outermost stage; each further one is half as wide
    layers: int = 4  # of the outermost stage; each further one has half as many

    @property
    def name(self):
        return f"{self.model} {self.length}" + (f" in {self.chunks} chunks" if self.chunks else "")

    @property
    def id(self):
        return self.name.replace(" ", "_").replace("+", "")

    @property
    def steps(self):
        """Steps of a repetition. The first is not counted: it touches all memory."""
        return 1 + min(max(MEASURED_BYTES // self.length, 1), MOST_STEPS)

    @property
    def generated(self):
        """Bytes generated at the end of a context of this length; the prompt is the rest."""
        return min(256, max(self.length // 4, 1))


def lengths(text):
    """1ki,16ki:8 -> ((1024, 0), (16384, 8)): lengths, each with a number of chunks or none."""
    result = []
    for part in text.split(","):
        length, _, chunks = part.partition(":")
        if (":" in part and not (chunks.isdigit() and int(chunks) > 0)) or size(length) < 2 * PATCH:
            raise argparse.ArgumentTypeError(
                f"{part!r} is no length such as 4ki, at least {2 * PATCH}, or length and chunks: 16ki:8")
        result.append((size(length), int(chunks or 0)))
    return tuple(result)


def models(text):
    result = tuple(text.split(","))
    for name in result:
        if name not in MODELS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(MODELS)}")
    return result


def width(text):
    value = int(text) if text.isdigit() else 0
    if value < 1 or value % (4 * HEAD):
        raise argparse.ArgumentTypeError(f"{text!r} is no multiple of {4 * HEAD}: stages are {HEAD}-wide heads, halved twice")
    return value


def transformer(width_):
    """As in the decks that the package ships: rotary attention, a table of positions."""
    return {"block_type": "transformer", "attn_head_dims": HEAD, "attn_num_heads": width_ // HEAD, "attn_use_rot_embs": True,
            "use_flash_attn": True, "pos_emb_type": "fixed"}


def mamba1():
    return {"block_type": "mamba1", "d_state": STATE, "d_conv": 4, "expand": 2, "headdim": HEAD, "pos_emb_type": None}


def params(case):
    """The deck's model, as both programs read it. The package's wiring is head `reference`, a key of ours."""
    stages = case.model.count("+") + 1
    widths = [case.width >> stage for stage in range(stages)]
    outer = math.ceil(case.length / PATCH ** (stages - 1))
    blocks = [transformer(width_) for width_ in widths]
    if case.model.startswith("Mamba-1"):
        blocks[0] = mamba1()
    return {"num_tokens": 257, "pad_token_id": 256, "hidden_dims": widths,
            "num_layers": [max(case.layers >> (stage > 0), 1) for stage in range(stages)],
            "seq_lens": [outer] + [PATCH] * (stages - 1), "input_seq_len": case.length,
            "train_checkpoint_chunks": [case.chunks] * (stages - 1) if case.chunks else None,
            "head": "reference", "block": blocks}


PEAK_RATE, WARMUP = 1e-4, 0.1  # of the learning rate


def rates(steps):
    """The learning rate of each step, by the rule of both trainers: a rise, then half a cosine."""
    warmup = math.floor(steps * WARMUP)
    return [PEAK_RATE * (0.1 + 0.9 * i / warmup) if i < warmup else
            PEAK_RATE * (1 + math.cos(math.pi * (i - warmup) / (steps - warmup))) / 2 for i in range(steps)]


def deck(case, dataset, output):
    return {"params": params(case),
            "train": {"target_elements": case.steps, "target_elements_strategy": "batch", "batch_size": 1,
                      "gradient_accumulate_every": 1, "learning_rate": PEAK_RATE, "warmup_steps_perc": WARMUP,
                      "gradient_clipping": 1, "weight_decay": 0, "max_eval_steps": 1},
            "io": {"name_model": "run", "output_dir": output, "dataset": dataset, "num_models_to_save": 0,
                   "validate_amount": 1, "log_train_loss_amount": 1000000, "checkpoint_every": 0}}
