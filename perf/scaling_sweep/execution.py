# SPDX-License-Identifier: Apache-2.0
"""Runs the cases of a plan and keeps one file for each: its numbers, or why it failed.

On any machine the cases of one number of ranks and threads are run by jobscripts/scaling.sbatch, as a job or, without Slurm,
as a plain script; it calls `perf/scaling work`, which is here.
"""
import dataclasses
import datetime
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from context_sweep import Failure

from . import planning

HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
INTERRUPTED = 75  # what jobscripts/scaling.sbatch has requeued


class Interrupted(Exception):
    pass


def result_path(folder, case):
    return os.path.join(folder, "results", case.id + ".json")


def read_result(folder, case):
    """What became of a case; None when it has not run to its end."""
    try:
        with open(result_path(folder, case), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Failure(f"{file.name} is no JSON: {error}; delete it to run the case again") from error


def is_due(folder, case, retry_failed):
    result = read_result(folder, case)
    return result is None or (retry_failed and result["status"] == "failed")


class Programs:
    """Programs that run at present, so that a signal or a time limit can end them."""

    def __init__(self):
        self.running, self.signal = [], None

    def catch(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self.stop)

    def stop(self, number, _frame):
        self.signal = number
        self.end()

    def end(self):
        for process in self.running:
            if process.poll() is None:
                process.terminate()

    def run(self, commands, limit):
        """Runs commands side by side: the standard output of the first. Failure with the last words of one that failed."""
        deadline = time.monotonic() + limit
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as messages:
            try:
                for command in commands:
                    if self.signal:
                        raise Interrupted
                    try:
                        self.running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=messages,
                                                             env=environment(), start_new_session=True))
                    except OSError as error:
                        raise Failure(f"cannot start {command[0]}: {error.strerror}") from error
                for process in self.running:
                    try:
                        process.wait(max(0, deadline - time.monotonic()))
                    except subprocess.TimeoutExpired:
                        raise Failure(f"not finished after {limit:.0f} s (--limit)") from None
                failed = [process.returncode for process in self.running if process.returncode != 0]
            finally:
                self.kill()
            if self.signal:
                raise Interrupted
            out.seek(0)
            messages.seek(0)
            if failed:
                raise Failure(reason(messages.read(), failed[0]))
            return out.read()

    def kill(self):
        """Ends what still runs; mpirun gets time to end its ranks."""
        self.end()
        for process in self.running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.running.clear()


def environment():
    """Without what stands in for Slurm where there is none."""
    own = dict(os.environ)
    if "SLURM_JOB_ID" not in own:
        for name in ("SLURM_NTASKS", "SLURM_CPUS_PER_TASK"):
            own.pop(name, None)
    return own


def reason(messages, status):
    """One line out of what a failed program wrote: its own sentence if there is one."""
    lines = [line.strip() for line in messages.splitlines() if line.strip(" -\n")]
    own = [line for line in lines if line.startswith("strata") or "[error]" in line.lower()]
    text = (own or lines or ["it wrote nothing"])[0 if own else -1]
    return f"status {status}: {text[:500]}"


def measure(case, programs, launcher, program, limit, facts):
    """One run. facts: what `strata info` said before, by command."""
    command = [*([] if case.alone else launcher), program]
    about = [*command, "info", case.deck, *case.changes, "--json"]
    if tuple(about) not in facts:
        facts[tuple(about)] = json.loads(programs.run([about], limit))
    info = facts[tuple(about)]
    folder = tempfile.mkdtemp(prefix="strata_scaling_", dir=os.environ.get("STRATA_SCALING_FOLDER") or None)
    try:
        names = [f"rank{rank}" for rank in range(case.ranks)] if case.alone else ["run"]
        commands = [[*command, "train", case.deck, *case.changes, f"io.output_dir={folder}", f"io.name_model={name}", "--quiet",
                     *["--profile"] * case.profile] for name in names]
        begin, others = time.monotonic(), -other_work()
        programs.run(commands, limit)
        wall, others = time.monotonic() - begin, others + other_work()
        records = [read_records(os.path.join(folder, name), case.steps) for name in names]
        with open(os.path.join(folder, names[0], "provenance.json"), encoding="utf-8") as file:
            provenance = json.load(file)[-1]
        profile = None
        if case.profile:
            with open(os.path.join(folder, names[0], "profile.json"), encoding="utf-8") as file:
                profile = json.load(file)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not case.alone and provenance["ranks"] != case.ranks:
        raise Failure(f"the launcher made {provenance['ranks']} ranks instead of {case.ranks}: {' '.join(launcher)}")
    return {"records": records[0], "others": records[1:], "info": essence(info), "provenance": provenance,
            "profile": profile, "wall_seconds": wall, "beside": None if "SLURM_JOB_ID" in os.environ else others / wall, "command": commands[0]}


def other_work():
    """Processor time that this machine has spent on other programs than those run here, in seconds; meaningful as a difference."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - own.ru_utime - own.ru_stime


def read_records(folder, steps):
    with open(os.path.join(folder, "metrics.jsonl"), encoding="utf-8") as file:
        records = [record for record in map(json.loads, file) if record["split"] == "train"]
    if not records or records[-1]["step"] != steps or len(records) != steps:
        raise Failure(f"{len(records)} steps are recorded instead of {steps}")
    return records


def essence(info):
    """Of `strata info`, what analysis and prediction need."""
    plan = info["memory_per_rank"]
    return {"parameters": info["parameters"], "flops_per_byte": info["flops_per_byte"]["training"],
            "predicted_peak": plan["predicted_peak_bytes"], "outer_tapes": plan["outer_tapes"],
            "outer_chunk": plan["outer_chunk_positions"], "outer_chunks": plan["outer_chunks"],
            "components": plan["component_bytes"],
            "stages": [{"bytes_per_position": stage["bytes_per_position"], "layers": stage["layers"],
                        "parameters": stage["embedder_parameters"] + stage["layer_parameters"],
                        "layer_parameters": stage["layer_parameters"],
                        "tape": stage["tape"]["bytes_per_position_and_layer"]} for stage in info["stages"]]}


def write(path, content):
    with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), suffix=".new", delete=False, encoding="utf-8") as file:
        json.dump(content, file)
    os.replace(file.name, path)


def work(options):
    """`perf/scaling work`: the cases of one allocation that have not run yet."""
    cases = planning.cases_of(planning.read_plan(options.results), options.ranks, options.threads, options.repetition)
    programs, facts, finished = Programs(), {}, 0
    programs.catch()
    for case in cases:
        if not is_due(options.results, case, options.retry_failed):
            continue
        result = {"id": case.id, "case": dataclasses.asdict(case), "launcher": options.launcher,
                  "job": os.environ.get("SLURM_JOB_ID"), "cores": os.cpu_count()}
        try:
            result.update(status="done", **measure(case, programs, options.launcher, options.strata, options.limit, facts))
        except (Failure, KeyError, ValueError, OSError) as failure:
            result.update(status="failed", reason=f"{failure}" if isinstance(failure, Failure) else f"unreadable: {failure!r}")
        except Interrupted:
            if programs.signal != signal.SIGUSR1 or finished:
                print(f"{case.id}: interrupted; the same command continues here", flush=True)
                sys.exit(INTERRUPTED)
            # Alone in its job it has had all there is, and the next start would see the same.
            result.update(status="failed", reason="not finished within the time limit of its job")
        result["date"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        write(result_path(options.results, case), result)
        finished += 1
        print(f"{case.id}: {result['status']}"
              + (f": {result['reason']}" if result["status"] == "failed" else f", {result['wall_seconds']:.1f} s"), flush=True)
        if programs.signal:
            sys.exit(INTERRUPTED)


def groups(options, plan):
    """(ranks, threads) with cases that are due."""
    due = {(case.ranks, case.threads) for case in planning.cases_of(plan)
           if is_due(options.results, case, options.retry_failed)}
    return sorted(due)


def run_here(options):
    """`perf/scaling run`, after planning: repetition by repetition, and in each one group after the other."""
    plan = planning.read_plan(options.results)
    script = os.path.join(HOME, "jobscripts", "scaling.sbatch")
    repetitions = sorted({case.repetition for case in planning.cases_of(plan)})
    programs = Programs()
    programs.catch()
    for repetition in repetitions:
        for ranks, threads in groups(options, plan):
            command = ["bash", script, options.machine, os.path.abspath(options.results), "--repetition", str(repetition),
                       *passed_on(options)]
            variables = {"STRATA_HOME": HOME, "STRATA_LAUNCH": "mpirun", "STRATA_THREADS": str(threads),
                         "SLURM_NTASKS": str(ranks), "SLURM_CPUS_PER_TASK": str(threads),
                         "STRATA_PROGRAM": os.path.abspath(options.strata)}
            with subprocess.Popen(command, env={**os.environ, **variables}, start_new_session=True) as process:
                programs.running[:] = [process]
                if programs.signal:
                    programs.end()
                status = process.wait()
            if programs.signal or status == INTERRUPTED:
                raise Failure("interrupted; the same command continues")
            if status != 0:
                raise Failure(f"{script} ended with status {status}")


def passed_on(options):
    return ["--limit", str(options.limit)] + (["--retry-failed"] if options.retry_failed else [])


def submission(options, ranks, threads):
    """The command that submits the cases of so many ranks and threads, and what it adds to the environment."""
    folder = options.machine if "/" in options.machine else os.path.join(HOME, "jobscripts", options.machine)
    try:
        with open(os.path.join(folder, "sbatch.options"), encoding="utf-8") as file:
            words = file.read().split()
    except OSError as error:
        raise Failure(f"{folder} is no folder of a machine: {error.strerror}") from error
    shell = "module() { :; }; source \"$1/environment.sh\" >/dev/null && printf %s \"$STRATA_CPUS_PER_CORE\""
    asked = subprocess.run(["bash", "-c", shell, "bash", folder], capture_output=True, text=True, check=False)
    if asked.returncode != 0 or not asked.stdout.isdigit():
        raise Failure(f"{folder}/environment.sh: {asked.stderr.strip() or 'no STRATA_CPUS_PER_CORE'}")
    filled = dict(word[2:].split("=", 1) for word in words if "=" in word)
    per_node = min(ranks, options.ranks_per_node or int(filled.get("ntasks-per-node", 1)))
    own = ("--nodes=", "--ntasks", "--cpus-per-task=")
    binds = "--cpus-per-task" in " ".join(words)
    command = ["sbatch", "--parsable", *(word for word in words if not word.startswith(own)),
               f"--nodes={-(-ranks // per_node)}", f"--ntasks={ranks}", f"--ntasks-per-node={per_node}"]
    if binds or "--gpus-per-node" not in " ".join(words):  # where masks bind ranks, Slurm deals out no cores
        command.append(f"--cpus-per-task={threads * int(asked.stdout)}")
    command += [*options.sbatch, os.path.join(HOME, "jobscripts", "scaling.sbatch"), options.machine,
                os.path.abspath(options.results), *passed_on(options)]
    variables = {"STRATA_HOME": HOME, "STRATA_THREADS": str(threads)}
    if options.program_given:
        variables["STRATA_PROGRAM"] = os.path.abspath(options.strata)
    return command, variables


def submit(options):
    """`perf/scaling submit`, after planning: a job for each number of ranks and threads."""
    for ranks, threads in groups(options, planning.read_plan(options.results)):
        command, variables = submission(options, ranks, threads)
        if options.dry_run:
            print(" ".join([*(f"{name}={value}" for name, value in variables.items()), *command]))
            continue
        try:
            done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
        except OSError as error:
            raise Failure(f"cannot start sbatch: {error.strerror}; without Slurm `perf/scaling run` measures here") from error
        if done.returncode != 0:
            raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")
        job = done.stdout.strip()
        planning.append_lines(os.path.join(options.results, "jobs.jsonl"), [{"job": job, "ranks": ranks, "threads": threads}])
        print(f"job {job}: {ranks} ranks x {threads} threads")
