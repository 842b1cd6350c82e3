#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""strata convert as its user meets it: models of the golden files, written as .pth and safetensors the way Python writes
them, become checkpoints that eval, generate and train take, and come back bit by bit.

usage: test_convert.py STRATA GOLDEN_FOLDER
"""
import collections
import io
import json
import math
import os
import pickle
import re
import struct
import sys
import tempfile
import types
import unittest
import zipfile

import h5py
import numpy

from program import Program, read, write

PROGRAM, GOLDEN = Program(sys.argv[1]), os.path.abspath(sys.argv[2])

TRAINING = """
train:
  target_elements: 40
  target_elements_strategy: batch
  batch_size: 4
  learning_rate: 0.001
  gradient_accumulate_every: 1
  masking_proba: 0.1
io:
  name_model: tuned
  output_dir: out
  num_models_to_save: 1
  validate_amount: 1
  log_train_loss_amount: 4
  dataset_dir: /data
  dataset_id: pg19
summary: {parameter_count: 1}
"""


# Stand-ins for torch: classes and functions of its names, so that pickle writes what torch.save writes.
def stand_in(module, name, made):
    made.__module__, made.__qualname__, made.__name__ = module, name, name
    parts = module.split(".")
    for i in range(len(parts)):
        sys.modules.setdefault(".".join(parts[: i + 1]), types.ModuleType(".".join(parts[: i + 1])))
    setattr(sys.modules[module], name, made)
    return made


TYPES = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage"}
STORAGES = {name: stand_in("torch", name, type(name, (), {})) for name in TYPES.values()}
REBUILD = stand_in("torch._utils", "_rebuild_tensor_v2", lambda *arguments: None)


class Storage:
    def __init__(self, array):
        self.array = array


class Tensor:
    """A view of an array, which may share its storage."""

    def __init__(self, array, storage=None, first=0):
        self.array, self.storage, self.first = array, storage or Storage(array), first

    def __reduce__(self):
        strides = tuple(s // self.array.itemsize for s in self.array.strides)
        return REBUILD, (self.storage, self.first, self.array.shape, strides, False, collections.OrderedDict())


class Pickler(pickle.Pickler):
    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.storages = []

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        if value not in self.storages:
            self.storages.append(value)
        kind = STORAGES[TYPES[str(value.array.dtype)]]
        return ("storage", kind, str(self.storages.index(value)), "cuda:0", value.array.size)


def save_torch(path, value):
    data = io.BytesIO()
    pickler = Pickler(data)
    pickler.dump(value)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("model/data.pkl", data.getvalue())
        archive.writestr("model/byteorder", "little")
        for number, storage in enumerate(pickler.storages):
            archive.writestr(f"model/data/{number}", storage.array.tobytes(order="A"))
        archive.writestr("model/version", "3\n")


def save_safetensors(path, arrays):
    header, data = {}, b""
    for name, array in arrays.items():
        raw = numpy.ascontiguousarray(array).tobytes()
        kind = {"float32": "F32", "float64": "F64", "float16": "F16"}[str(array.dtype)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def load_safetensors(path):
    with open(path, "rb") as file:
        content = file.read()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    kinds = {"F32": "<f4"}
    return {
        name: numpy.frombuffer(content[8 + length + e["data_offsets"][0] : 8 + length + e["data_offsets"][1]], kinds[e["dtype"]])
        .reshape(e["shape"])
        for name, e in header.items()
    }


def golden(name):
    """State dict in float32 and in its order, configuration, ids and loss of a golden file."""
    with h5py.File(os.path.join(GOLDEN, name + ".h5"), "r") as file:
        arrays = collections.OrderedDict()
        for tensor in file.attrs["state_dict_order"].split():
            group = "params" if tensor in file["params"] else "buffers"
            arrays[tensor] = file[group][tensor][()].astype(numpy.float32)
        return arrays, file.attrs["config_yaml"], file["inputs/ids"][()], float(file["outputs/loss"][()])


def config_yaml(model, length):
    """The config.yaml that the package leaves beside its model."""
    lines = "".join("  " + line + "\n" for line in model.strip().splitlines())
    return f"params:\n{lines}  input_seq_len: {length}\n{TRAINING}resume: null\n"


class Convert(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder.name)

    def strata(self, *arguments, status=0):
        """Standard output; of a run that fails, the one line on standard error."""
        return PROGRAM.run(*arguments)[0] if status == 0 else PROGRAM.refusal(*arguments, status=status)

    def bits_per_byte(self, checkpoint, ids):
        """Of the ids as files, each row a window of its own."""
        names = []
        for row, values in enumerate(ids):
            names.append(f"row{row}")
            with open(names[-1], "wb") as file:
                file.write(bytes(values.tolist()))
        output = self.strata("eval", "--checkpoint", checkpoint, "--score", *names, "--window", str(ids.shape[1]), "--json")
        return json.loads(output)["bits_per_byte"]

    def greedy(self, checkpoint):
        return self.strata("generate", "--checkpoint", checkpoint, "--prompt", "The ", "--bytes", "16", "--temperature", "0")

    def test_torch_file_gives_the_packages_bits_per_byte(self):
        for name in ["mblm_t1", "mblm_tt", "mblm_tt_pad0"]:
            arrays, model, ids, loss = golden(name)
            # As the trainer saves: start tokens that share a storage, an attribute on the state dict.
            starts = [n for n in arrays if n.startswith("start_tokens.")]
            shared = Storage(numpy.concatenate([arrays[n] for n in starts]))
            state, first = collections.OrderedDict(), 0
            for tensor, array in arrays.items():
                state[tensor] = Tensor(array, shared, first) if tensor in starts else Tensor(array)
                first += array.size if tensor in starts else 0
            state._metadata = collections.OrderedDict(version=1)
            save_torch("m.pth", {"MODEL": state, "LOSS": 1.25})
            write("config.yaml", config_yaml(model, ids.shape[1]))
            text = self.strata("convert", "--from", "m.pth", "--deck", "config.yaml", "--output", name + ".h5").decode()
            for tensor in arrays:
                self.assertRegex(text, rf"(?m)^(mapped|ignored)  ?\s*{tensor}[: ]")
            self.assertIn("none missing", text)
            with h5py.File(name + ".h5", "r") as file:
                for tensor, array in file["parameters"].items():
                    self.assertEqual(array[()].tobytes(), arrays[tensor].tobytes(), tensor)
            self.assertLess(abs(self.bits_per_byte(name + ".h5", ids) * math.log(2) - loss), 1e-5)

    def test_greedy_bytes_are_the_packages(self):
        """The most likely byte of the package's logits follows each beginning of its inputs; and its loss is eval's."""
        for name in ["mblm_tt", "mblm_m2t", "mblm_m1t", "megabyte_tt"]:
            arrays, model, ids, loss = golden(name)
            with h5py.File(os.path.join(GOLDEN, name + ".h5")) as file:
                logits = file["outputs/logits"][()]
            save_safetensors("m.safetensors", arrays)
            write("model.yaml", model)
            self.strata("convert", "--from", "m.safetensors", "--deck", "model.yaml", "--output", name + ".h5", "--quiet")
            self.assertLess(abs(self.bits_per_byte(name + ".h5", ids) * math.log(2) - loss), 1e-5)
            for row in range(len(ids)):
                for length in (1, 7, ids.shape[1] - 1):
                    write("prompt", bytes(ids[row, :length].tolist()))
                    made = self.strata("generate", "--checkpoint", name + ".h5", "--prompt-file", "prompt", "--bytes", "1",
                                       "--temperature", "0", "--json")
                    self.assertEqual(json.loads(made)["samples"][0]["bytes"], [logits[row, length - 1, :256].argmax()])

    def test_there_and_back(self):
        arrays, model, ids, _ = golden("mblm_tt")
        save_safetensors("m.safetensors", arrays)
        write("model.yaml", model)
        self.strata("convert", "--from", "m.safetensors", "--deck", "model.yaml", "--output", "a.h5", "--quiet")
        before = self.greedy("a.h5"), self.bits_per_byte("a.h5", ids)
        for names in ["mblm", "mblm-patched", "mblm-modules", "megabyte"]:
            self.strata("convert", "--from", "a.h5", "--output", "b.safetensors", "--names", names, "--force")
            back = load_safetensors("b.safetensors")
            self.assertEqual(len(back), len(arrays))
            if names == "mblm":
                for tensor, array in arrays.items():
                    self.assertEqual(back[tensor].shape, array.shape)
                    if not tensor.endswith("inv_freq"):
                        self.assertEqual(back[tensor].tobytes(), array.tobytes(), tensor)
            self.strata("convert", "--from", "b.safetensors", "--output", "c.h5", "--force")
            self.assertTrue(read("a.h5") == read("c.h5"), names)
        self.assertEqual((self.greedy("c.h5"), self.bits_per_byte("c.h5", ids)), before)

    def test_rounded_weights(self):
        """float16 and float64 files are the float32 file of the same numbers."""
        arrays, model, _, _ = golden("mblm_tt")
        write("model.yaml", model)
        half = {name: array.astype(numpy.float16) for name, array in arrays.items()}
        for name, kind in [("h", numpy.float16), ("s", numpy.float32), ("d", numpy.float64)]:
            save_safetensors("m.safetensors", {n: a.astype(kind) for n, a in half.items()})
            self.strata("convert", "--from", "m.safetensors", "--deck", "model.yaml", "--output", name + ".h5", "--quiet")
            save_torch("m.pth", {n: Tensor(a.astype(kind)) for n, a in half.items()})
            self.strata("convert", "--from", "m.pth", "--deck", "model.yaml", "--output", name + "2.h5", "--quiet")
        contents = {read(n + ".h5") for n in ["h", "s", "d", "h2", "s2", "d2"]}
        self.assertEqual(len(contents), 1)

    def test_fine_tuning(self):
        arrays, model, ids, _ = golden("mblm_tt")
        save_safetensors("m.safetensors", arrays)
        write("config.yaml", config_yaml(model, 24))
        self.strata("convert", "--from", "m.safetensors", "--deck", "config.yaml", "--output", "m.h5")
        write("text", "to be or not to be " * 200)
        self.strata("pack", "--split-within", "--split", "0.8,0.2,0", "--output", "data.h5", "text")
        self.strata("train", "config.yaml", "io.dataset=data.h5", "io.output_dir=.", "train.init_from=m.h5", "train.target_elements=400", "--quiet")
        first = self.strata("eval", "--checkpoint", "m.h5", "--data", "data.h5", "--split", "validation", "--json")
        last = self.strata("eval", "--checkpoint", "tuned", "--data", "data.h5", "--split", "validation", "--json")
        self.assertLess(json.loads(last)["bits_per_byte"], json.loads(first)["bits_per_byte"] - 0.1)
        # The run starts from the very weights.
        with h5py.File("tuned/checkpoints/step_0000000000.h5", "r") as start, h5py.File("m.h5", "r") as converted:
            for tensor, array in converted["parameters"].items():
                self.assertEqual(array[()].tobytes(), start["parameters"][tensor][()].tobytes(), tensor)

    def test_pad_row_of_megabyte_is_trained(self):
        write("text", "to be or\0not to be\0" * 200)  # a byte that is the pad id
        PROGRAM.run("pack", "--split-within", "--split", "0.8,0.2,0", "--output", "data.h5", "text")
        for name, trained in (("megabyte_tt", True), ("mblm_tt_pad0", False)):
            arrays, model, _, _ = golden(name)
            save_safetensors("m.safetensors", arrays)
            write("model.yaml", model)
            convert = ["convert", "--from", "m.safetensors", "--deck", "model.yaml", "--force"]
            self.strata(*convert, "--output", f"{name}.h5")
            write("bare.yaml", "params: {input_seq_len: 18}\n" + TRAINING)
            self.strata("train", "bare.yaml", "io.dataset=data.h5", f"io.name_model={name}", f"train.init_from={name}.h5", "--quiet")
            with h5py.File(f"{name}.h5") as first, h5py.File(f"out/{name}/latest.h5") as last:
                self.assertIn(f"pad_row_is_trained: {'true' if trained else 'false'}", last["config"][0].decode())
                pad = int(re.search(r"pad_token_id: (\d+)", last["config"][0].decode())[1])
                before, after = (file["parameters"]["token_embs_rev.1.0.weight"][pad] for file in (first, last))
                self.assertEqual((before != after).any(), trained)
                self.assertEqual(before.any(), trained)
            # There and back keeps the row and what the deck says of it.
            self.strata("convert", "--from", f"{name}.h5", "--output", "b.safetensors", "--force")
            self.strata("convert", "--from", "b.safetensors", "--output", "c.h5", "--force")
            self.assertTrue(read("c.h5") == read(f"{name}.h5"))

    def test_json_and_report(self):
        arrays, model, _, _ = golden("megabyte_tt")
        save_safetensors("m.safetensors", arrays)
        write("model.yaml", model)
        report = json.loads(self.strata("convert", "--from", "m.safetensors", "--deck", "model.yaml", "--output", "m.h5", "--json"))
        self.assertEqual(report["names"], "megabyte")
        self.assertEqual(report["missing"] + report["unknown"] + report["wrong"], [])
        self.assertEqual(len(report["mapped"]) + len(report["ignored"]), len(arrays))
        self.assertIn({"tensor": "token_embs.0.weight", "type": "float32", "shape": [256, 8], "parameter": "token_embs_rev.0.weight"},
                      report["mapped"])
        report = json.loads(self.strata("convert", "--from", "m.h5", "--output", "b.safetensors", "--names", "megabyte", "--json"))
        self.assertEqual({m["tensor"] for m in report["mapped"]} | set(report["added"]), set(arrays))
        # What does not fit is listed even though nothing is written.
        del arrays["to_logits.bias"]
        arrays["surplus"] = numpy.zeros(3, numpy.float32)
        arrays["start_tokens.0"] = numpy.zeros(13, numpy.float32)
        save_safetensors("m.safetensors", arrays)
        command = ["convert", "--from", "m.safetensors", "--deck", "model.yaml", "--output", "n.h5"]
        output = PROGRAM.output(*command, status=1)
        for line in ["missing  to_logits.bias", "unknown  surplus",
                     "wrong    start_tokens.0 has the shape [13] where the deck needs [12]"]:
            self.assertIn(line, output.splitlines())
        self.assertFalse(os.path.exists("n.h5"))

    def test_refusals(self):
        arrays, model, _, _ = golden("mblm_tt")
        write("model.yaml", model)
        save_safetensors("m.safetensors", arrays)
        convert = ["convert", "--deck", "model.yaml", "--output", "m.h5", "--from"]
        self.strata(*convert, "m.safetensors")
        self.assertIn("use --force", self.strata(*convert, "m.safetensors", status=1))
        self.strata(*convert, "m.safetensors", "--force", "--quiet")
        os.link("m.safetensors", "other")
        self.assertIn("is the file that is read", self.strata(*convert[:3], "--from", "m.safetensors", "--output", "other", status=1))
        self.assertIn("would not be", self.strata("convert", "--from", "m.h5", "--output", "again.h5", status=1))
        self.assertIn("would not be", self.strata("convert", "--from", "m.h5", "--output", "again.pth", status=1))
        self.assertIn("leave --deck", self.strata(*convert[:3], "--from", "m.h5", "--output", "x.safetensors", status=1))
        self.assertIn("cannot read", self.strata(*convert, "none.pth", "--force", status=1))

        class Touch:
            def __reduce__(self):
                return os.system, ("touch touched",)

        state = {name: Tensor(array) for name, array in arrays.items()}
        save_torch("evil.pth", {**state, "hook": Touch()})
        message = self.strata(*convert, "evil.pth", "--force", status=1)
        self.assertIn("system', which no dictionary of tensors needs", message)
        self.assertFalse(os.path.exists("touched"))
        save_torch("whole.pth", state)
        whole = read("whole.pth")
        for size in [0, 3, 100, len(whole) // 2, len(whole) - 1]:
            with open("cut.pth", "wb") as file:
                file.write(whole[:size])
            self.assertIn("cut.pth", self.strata(*convert, "cut.pth", "--force", status=1))
        with zipfile.ZipFile("small.pth", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("model/data.pkl", "x" * 100)
        self.assertIn("compressed entry", self.strata(*convert, "small.pth", "--force", status=1))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
