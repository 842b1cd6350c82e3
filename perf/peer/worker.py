# SPDX-License-Identifier: Apache-2.0
"""The package's side of the comparison; runs in the virtual environment.

  worker.py initialise TASK.json    draws weights and saves them: {"models": [{"params", "weights"}]}, "seed"
  worker.py run TASK.json           trains, then generates; prints a JSON object for each part as it is done

Models, losses and generation are the package's own. The training loop is written here because the package's trainer wants
a GPU; it does what that does on one device in float32: forward, backward, clipping, Adam without decay.
"""
import json
import resource
import sys
import time

import torch

import mblm


def build(params):
    own = {key: value for key, value in params.items() if key not in ("input_seq_len", "head")}
    return mblm.MBLM(mblm.MBLMModelConfig.model_validate(own))


def engines(model):
    """Where the layers of each stage come from."""
    found = []
    for stage in model.stage_models:
        modules = [type(module).__module__.partition(".")[0] for module in stage.modules()]
        found.append(next((name for name in modules if name not in ("torch", "mblm")), "mblm"))
    return found


def initialise(task):
    for entry in task["models"]:
        torch.manual_seed(task["seed"])
        model = build(entry["params"])
        torch.save({"MODEL": model.state_dict(), "LOSS": 0.0}, entry["weights"])


def load(task):
    model = build(task["params"])
    model.load_state_dict(torch.load(task["weights"], weights_only=True)["MODEL"])
    return model


def read(path, count):
    with open(path, "rb") as file:
        return torch.frombuffer(bytearray(file.read(count)), dtype=torch.uint8).long()


def train(model, task):
    model.train()
    # One kernel for all of a tensor's update: the fastest that PyTorch has for a CPU.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=True)
    length = task["params"]["input_seq_len"]
    bytes_ = read(task["data"], length * len(task["rates"]))
    losses, seconds = [], []
    for step, rate in enumerate(task["rates"]):
        window = bytes_[step * length:(step + 1) * length].unsqueeze(0)
        start = time.perf_counter()
        optimizer.param_groups[0]["lr"] = rate
        loss = model(window, return_type=mblm.MBLMReturnType.LOSS)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), task["clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    return {"losses": losses, "step_seconds": seconds, "peak_memory": peak_memory()}


def generate(model, task):
    """A first byte without counting, then as many as the time allows. Each costs a forward pass over all before it."""
    model.eval()
    settings = task["generate"]
    prompt = read(task["data"], settings["prompt"])

    def timed(count):
        start = time.perf_counter()
        made = model.generate(prompt, num_tokens_to_generate=count, enable_progress=False)[len(prompt):]
        return made.tolist(), time.perf_counter() - start

    _, first = timed(1)
    count = min(max(int(settings["seconds"] / first), 1), settings["most"])
    made, seconds = timed(count)
    return {"generated": made, "generate_seconds": seconds}


def peak_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(task):
    start = {"program_memory": peak_memory()}
    trained = load(task)
    answer(**start, engines=engines(trained), parameters=sum(p.numel() for p in trained.parameters()))
    answer(**train(trained, task))
    del trained
    answer(**generate(load(task), task))


def answer(**values):
    print(json.dumps(values), flush=True)


def main():
    with open(sys.argv[2], encoding="utf-8") as file:
        task = json.load(file)
    torch.set_num_threads(task["threads"])
    torch.set_num_interop_threads(1)
    {"initialise": initialise, "run": run}[sys.argv[1]](task)


main()
