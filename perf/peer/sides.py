# SPDX-License-Identifier: Apache-2.0
"""Both programs: how they are installed and run, and what they answer. A repetition of a side is one process for the
package and two for this program (train, generate); times are taken inside of them."""
import json
import os
import re
import resource
import shutil
import subprocess
import sys

from context_sweep import Failure

from . import cases

HERE = os.path.dirname(os.path.abspath(__file__))
WORKER = os.path.join(HERE, "worker.py")
PACKAGES = ("mblm", "torch")
VERSIONS = ("import importlib.metadata as m, json, platform; print(json.dumps({'python': platform.python_version(), "
            "**{n: m.version(n) for n in ('mblm', 'torch', 'mambapy', 'MEGABYTE-pytorch')}}))")


def environment(threads):
    own = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    own.setdefault("OMP_PROC_BIND", "false")
    for name in ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "PYTHONPATH"):
        own.pop(name, None)
    return own


class Runner:
    """Runs programs with the same threads, time limit and memory limit."""

    def __init__(self, threads, seconds, memory):
        self.environment, self.seconds, self.memory = environment(threads), seconds, memory

    def __call__(self, command, limited=True):
        """Standard output and error. Failure(reason), which holds what was printed so far as `printed`."""
        def limit():
            resource.setrlimit(resource.RLIMIT_DATA, (self.memory, self.memory))
        try:
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  errors="replace", env=self.environment, preexec_fn=limit if limited else None) as process:
                try:
                    out, messages = process.communicate(timeout=self.seconds if limited else None)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise failure(f"not finished after {self.seconds:.0f} s", process.communicate()[0]) from None
                except BaseException:
                    process.kill()
                    raise
        except OSError as error:
            raise failure(f"cannot start {command[0]}: {error.strerror}") from error
        if process.returncode != 0:
            raise failure(reason(messages, process.returncode), out)
        return out, messages


def failure(words, printed=""):
    result = Failure(words)
    result.printed = printed
    return result


def reason(messages, status):
    """The last words of a program, in short."""
    if re.search(r"can't allocate memory|MemoryError|bad_alloc|Cannot allocate memory", messages):
        return "out of memory"
    words = [line.strip() for line in messages.splitlines() if line.strip()]
    return words[-1] if words else f"ended with status {status}"


# ---------------------------------------------------------------- the package

def python_of(folder):
    return os.path.join(folder, "bin", "python")


def install_commands(folder, packages):
    return [[sys.executable, "-m", "venv", folder], [python_of(folder), "-m", "pip", "install", *packages]]


def install(run, folder, packages):
    """Makes the virtual environment unless it is there, and tells the versions in it."""
    def versions():
        return json.loads(run([python_of(folder), "-c", VERSIONS], limited=False)[0])
    try:
        return versions()
    except Failure:
        for command in install_commands(folder, packages):
            print("compare_peer.py: " + " ".join(command), file=sys.stderr, flush=True)
            run(command, limited=False)
        return versions()


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
    return path


def work(run, python, verb, folder, task):
    """What the worker prints: one object of all that it got to, with `failure` where it did not reach its end."""
    path = write_json(os.path.join(folder, f"{verb}.json"), task)
    try:
        printed, why = run([python, WORKER, verb, path])[0], None
    except Failure as error:
        printed, why = error.printed, str(error)
    answer = {}
    for line in printed.splitlines():
        answer.update(json.loads(line))
    return {**answer, "failure": why} if why else answer


def package_task(case, files, threads, generate_seconds):
    return {"params": cases.params(case), "weights": files["weights"], "data": files["data"], "threads": threads,
            "rates": cases.rates(case.steps), "clip": 1.0,
            "generate": {"prompt": case.length - case.generated, "most": case.generated, "seconds": generate_seconds}}


# ---------------------------------------------------------------- this program

def convert_command(program, files):
    return [program, "convert", "--from", files["weights"], "--deck", files["deck"], "--output", files["model"],
            "--force", "--quiet"]


def train_command(program, files):
    return [program, "train", files["deck"], f"resume.checkpoint_file={files['model']}", "--quiet"]


def generate_command(program, case, files):
    return [program, "generate", "--checkpoint", files["model"], "--prompt-file", files["prompt"],
            "--bytes", str(case.generated), "--temperature", "0", "--json"]


SPEED = re.compile(r"(\d+) bytes(?: of prompt read)? in ([0-9.]+) s, (\d+) bytes/s")


def speeds(messages):
    """Bytes per second of reading the prompt and of making bytes, from the last lines of `strata generate`."""
    found = [float(match.group(3)) for match in SPEED.finditer(messages)]
    if len(found) != 2:
        raise Failure(f"strata generate did not tell its speed: {messages.strip()}")
    return found


def strata(run, program, case, files):
    """One repetition of this program: what the worker answers for the package, under the same names."""
    answer = {}
    try:
        shutil.rmtree(files["run"], ignore_errors=True)
        run(train_command(program, files))
        with open(os.path.join(files["run"], "run", "metrics.jsonl"), encoding="utf-8") as file:
            records = [record for record in map(json.loads, file) if record["split"] == "train"]
        with open(os.path.join(files["run"], "run", "provenance.json"), encoding="utf-8") as file:
            answer["provenance"] = json.load(file)[-1]
        answer.update(losses=[record["loss"] for record in records],
                      step_seconds=[record["step_seconds"] for record in records],
                      rates=[record["learning_rate"] for record in records], peak_memory=records[-1]["peak_memory"])
        out, messages = run(generate_command(program, case, files))
        answer["generated"] = json.loads(out)["samples"][0]["bytes"]
        reading, making = speeds(messages)
        answer.update(prompt_bytes_per_second=reading, generate_seconds=case.generated / making)
    except Failure as error:
        answer["failure"] = str(error)
    finally:
        shutil.rmtree(files["run"], ignore_errors=True)
    return answer
