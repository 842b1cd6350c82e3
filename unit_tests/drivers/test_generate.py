#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""strata generate with small trained models: the same bytes on any number of ranks and threads and in any batch, every form
of output, states on disk, signals, and what is refused.

usage: test_generate.py STRATA MPIEXEC NUMPROC_FLAG [MPIEXEC_FLAG...]
"""
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from program import DECK, LIMIT, Program, read, words, write

PROGRAM = Program(*sys.argv[1:])
CONTEXT = 64  # bytes of the model with a position table
FREE = ("params.seq_lens=[16, 4]", "params.input_seq_len=64", "train.target_elements=640", "io.name_model=free")
TABLE = (*FREE, "io.name_model=table", "params.head=reference",
         "params.block.0={block_type: transformer, attn_head_dims: 16, attn_num_heads: 2, attn_use_rot_embs: true, "
         "pos_emb_type: fixed}")
launch, strata = PROGRAM.launch, PROGRAM.run


def generate(*arguments, model="free", **how):
    return strata("generate", "--checkpoint", model, *arguments, **how)[0]


def samples(*arguments, **how):
    return json.loads(generate("--json", *arguments, **how))["samples"]


FOLDER = tempfile.TemporaryDirectory()


def setUpModule():
    os.chdir(FOLDER.name)
    write("text", words(4000, 1, ["slate", "gn\u00e4iss", "marl\n", "tuff", "l\u00f6ss", "\U0001f30b"]))
    write("deck.yaml", DECK)
    strata("pack", "--output", "data.h5", "--train", "text", "--validation", "text")
    for changes in (FREE, TABLE):
        strata("train", "deck.yaml", *changes, "--quiet", threads=2)


def tearDownModule():
    os.chdir("/")
    FOLDER.cleanup()


class Bytes(unittest.TestCase):
    def test_the_same_whatever_the_ranks_threads_and_batch(self):
        write("long prompt", read("text")[:333])
        arguments = ["--bytes", "40", "--samples", "3", "--temperature", "0.9", "--top-p", "0.98", "--stop", "10",
                     "--prompt", "slate tu", "--prompt-file", "long prompt", "--prompt", "", "--seed", "7", "--json"]
        expected = generate(*arguments, "--batch", "1")
        ends = {sample["end"] for sample in json.loads(expected)["samples"]}
        self.assertEqual(ends, {"stop", "length"}, "the test wants both")
        for how in ({"ranks": 1, "threads": 2}, {"ranks": 2}, {"ranks": 4}, {"ranks": 2, "threads": 2}):
            self.assertEqual(generate(*arguments, **how), expected, how)
        for batch in ("3", "8"):
            self.assertEqual(generate(*arguments, "--batch", batch), expected, batch)
        self.assertEqual(generate(*arguments, "--batch", "2", ranks=2), expected)

    def test_ranks_without_a_sample(self):
        self.assertEqual(generate("--bytes", "20", ranks=4), generate("--bytes", "20"))

    def test_the_table_model_too(self):
        for more in ([], ["--slide"]):
            arguments = ["--bytes", "150" if more else "50", "--samples", "5", "--prompt", "slate", "--prompt", "", *more]
            expected = generate(*arguments, "--batch", "1", model="table")
            for how in ({"threads": 2}, {"ranks": 4}):
                self.assertEqual(generate(*arguments, model="table", **how), expected, (more, how))

    def test_seeds_and_greedy(self):
        first = generate("--bytes", "60")
        self.assertEqual(len(first), 60)
        self.assertEqual(generate("--bytes", "60", "--seed", "1"), first)
        self.assertNotEqual(generate("--bytes", "60", "--seed", "2"), first)
        greedy = generate("--bytes", "60", "--temperature", "0")
        for same in (["--top-k", "1"], ["--filter-thres", "1"], ["--min-p", "1"], ["--top-p", "1e-9"]):
            self.assertEqual(generate("--bytes", "60", "--seed", "5", *same), greedy, same)
        for all_bytes in (["--top-k", "256"], ["--filter-thres", "0"], ["--top-p", "1"], ["--min-p", "0"]):
            self.assertEqual(generate("--bytes", "60", *all_bytes), first, all_bytes)
        # 25 of 257 tokens, whichever option says so.
        self.assertEqual(generate("--bytes", "60", "--filter-thres", "0.9"), generate("--bytes", "60", "--top-k", "25"))

    def test_samples_differ_and_have_their_numbers(self):
        several = samples("--bytes", "40", "--samples", "4", "--prompt", "sl")
        self.assertEqual([sample["sample"] for sample in several], [0, 1, 2, 3])
        self.assertEqual(len({bytes(sample["bytes"]) for sample in several}), 4)
        alone = samples("--bytes", "40", "--prompt", "sl")
        self.assertEqual(alone[0], several[0])

    def test_stop_bytes_are_left_out(self):
        whole = bytes(samples("--bytes", "200", "--prompt", "slate")[0]["bytes"])
        cut = min(whole.index(b" "), whole.index(b"\n") if b"\n" in whole else 200)
        for option in (["--stop", "32,10"], ["--stop", "32", "--stop", "10"]):
            sample = samples("--bytes", "200", "--prompt", "slate", *option)[0]
            self.assertEqual((bytes(sample["bytes"]), sample["end"]), (whole[:cut], "stop"))
            self.assertEqual(generate("--bytes", "200", "--prompt", "slate", *option), whole[:cut])

    def test_prompts_keep_their_order_and_their_characters(self):
        write("file", b"from a file\0\xff")
        odd = ["{}", "[a,b]", "-x", "a,b", "'quoted'", "%%"]
        arguments = ["--prompt", "first", "--prompt-file", "file"]
        for text in odd:
            arguments += ["--prompt", text]
        found = samples("--bytes", "1", "--echo", *arguments, "--prompt-file", "-", stdin=b"piped")
        self.assertEqual([sample["prompt"] for sample in found],
                         ["first", "from a file\0\ufffd", *odd, "piped"])
        self.assertEqual(found[1]["prompt_bytes"], 13)
        piped = generate("--bytes", "9", "--prompt-file", "-", stdin=b"piped", ranks=2)
        self.assertEqual(piped, generate("--bytes", "9", "--prompt", "piped"))


class Output(unittest.TestCase):
    def test_one_sample_is_raw(self):
        made = bytes(samples("--bytes", "100", "--prompt", "tuff")[0]["bytes"])
        self.assertEqual(generate("--bytes", "100", "--prompt", "tuff"), made)
        self.assertEqual(generate("--bytes", "100", "--prompt", "tuff", "--echo"), b"tuff" + made)

    def test_several_are_lines(self):
        arguments = ["--bytes", "30", "--samples", "3", "--prompt", "a", "--prompt", "bc", "--stop", "10"]
        made = [bytes(sample["bytes"]) for sample in samples(*arguments)]
        for ranks in (1, 2):
            self.assertEqual(generate(*arguments, ranks=ranks), b"".join(text + b"\n" for text in made))
        echoed = generate(*arguments, "--echo")
        prompts = [b"a"] * 3 + [b"bc"] * 3
        self.assertEqual(echoed, b"".join(prompt + text + b"\n" for prompt, text in zip(prompts, made)))

    def test_files(self):
        arguments = ["--bytes", "30", "--samples", "3", "--prompt", "a"]
        made = [bytes(sample["bytes"]) for sample in samples(*arguments)]
        for ranks in (1, 4):
            self.assertEqual(generate(*arguments, "--output", f"s{ranks}-{{}}.txt", ranks=ranks), b"")
            self.assertEqual([read(f"s{ranks}-{number}.txt") for number in range(3)], made)
        generate("--bytes", "30", "--prompt", "a", "--output", "one")
        self.assertEqual(read("one"), made[0])
        generate(*arguments, "--json", "--output", "all.json")
        self.assertEqual([bytes(sample["bytes"]) for sample in json.loads(read("all.json"))["samples"]], made)

    def test_utf8(self):
        # Hot enough for broken sequences.
        hot = ["--bytes", "300", "--temperature", "1.5", "--prompt", "l\u00f6"]
        raw = generate(*hot)
        text = raw.decode(errors="replace")
        self.assertIn("\ufffd", text)
        self.assertEqual(generate(*hot, "--utf8").decode(), text)
        self.assertEqual(samples(*hot)[0]["text"], text)
        # A character that begins in the prompt ends in what follows.
        write("half", "\u00f6".encode()[:1])
        joined = read("half") + generate("--bytes", "50", "--prompt-file", "half")
        self.assertEqual(generate("--bytes", "50", "--prompt-file", "half", "--echo", "--utf8").decode(),
                         joined.decode(errors="replace"))
        several = generate(*hot, "--samples", "3", "--utf8").decode()
        self.assertEqual(several, "".join(sample["text"] + "\n" for sample in samples(*hot, "--samples", "3")))

    def test_json(self):
        result = json.loads(generate("--json", "--bytes", "50", "--prompt", "marl", "--samples", "2", "--seed", "3",
                                     "--temperature", "0.8", "--top-k", "9", "--stop", "0,1"))
        self.assertEqual(list(result), ["checkpoint", "step", "settings", "samples"])
        self.assertTrue(os.path.samefile(result["checkpoint"], "free/latest.h5"))
        self.assertEqual(result["step"], 80)
        self.assertEqual(result["settings"],
                         {"bytes": 50, "samples": 2, "temperature": 0.8, "top_k": 9, "filter_thres": None, "top_p": 1,
                          "min_p": 0, "seed": 3, "stop": [0, 1], "slide": False, "load_state": None})
        for sample in result["samples"]:
            self.assertEqual(list(sample), ["sample", "prompt_bytes", "bytes", "text", "log_probabilities", "end"])
            self.assertEqual((sample["prompt_bytes"], sample["end"]), (4, "length"))
            self.assertEqual(len(sample["bytes"]), 50)
            self.assertEqual(len(sample["log_probabilities"]), 50)
            self.assertTrue(all(value < 0 for value in sample["log_probabilities"]))
            self.assertEqual(bytes(sample["bytes"]).decode(errors="replace"), sample["text"])

    def test_log_probabilities_are_those_of_the_model(self):
        # Over single bytes after the same prompt they add up to one, the pad token's share apart; and sampling at
        # temperature 1 shows them as frequencies.
        found = samples("--bytes", "1", "--prompt", "sla", "--samples", "400")
        share = {sample["bytes"][0]: math.exp(sample["log_probabilities"][0]) for sample in found}
        self.assertLess(sum(share.values()), 1 + 1e-6)
        self.assertGreater(sum(share.values()), 0.9)
        for byte, expected in share.items():
            count = sum(sample["bytes"][0] == byte for sample in found)
            self.assertLess(abs(count - 400 * expected), 5 * math.sqrt(400 * expected * (1 - expected)) + 3)
        # Filters and temperature change what is drawn, not what the model says of it.
        again = samples("--bytes", "1", "--prompt", "sla", "--temperature", "0.5", "--top-k", "5")[0]
        self.assertEqual(math.exp(again["log_probabilities"][0]), share[again["bytes"][0]])

    def test_report(self):
        _, errors = strata("generate", "--checkpoint", "free", "--bytes", "20", "--prompt", "slate")
        lines = errors.splitlines()
        self.assertRegex(lines[-2], r"info: 5 bytes of prompt read in [\d.]+ s, \d+ bytes/s$")
        self.assertRegex(lines[-1], r"info: 20 bytes in [\d.]+ s, \d+ bytes/s$")
        _, errors = strata("generate", "--checkpoint", "free", "--bytes", "20", "--samples", "4", ranks=2)
        self.assertEqual(len(re.findall(r"info: 80 bytes in ", errors)), 1, errors)

    def test_a_full_disk(self):
        _, errors = strata("generate", "--checkpoint", "free", "--bytes", "20", "--output", "/dev/full", status=1)
        self.assertIn("strata: cannot write /dev/full: No space left on device", errors)


class Limits(unittest.TestCase):
    def test_the_position_table_ends_generation(self):
        message = strata("generate", "--checkpoint", "table", "--bytes", "1", "--prompt", "x" * CONTEXT, status=1)[1]
        self.assertIn(f"after a prompt of {CONTEXT} bytes the model has no room for another one: its position table ends "
                      f"at {CONTEXT} bytes; --slide goes on beyond it", message)
        self.assertEqual(len(generate("--bytes", "59", "--prompt", "slate", model="table")), 59)
        # What was made is kept.
        command = ["generate", "--checkpoint", "table", "--bytes", "600", "--prompt", "slate"]
        made, message = strata(*command, status=1)
        self.assertEqual(made, generate("--bytes", "59", "--prompt", "slate", model="table"))
        self.assertIn("sample 0 ends after 59 of 600 bytes: the position table of table ends at 64 bytes", message)
        made, _ = strata(*command, "--json", status=1)
        self.assertEqual(json.loads(made)["samples"][0]["end"], "full")

    def test_sliding(self):
        made = generate("--bytes", "300", "--slide", "--prompt", "slate", model="table")
        self.assertEqual(len(made), 300)
        self.assertEqual(made[:59], generate("--bytes", "59", "--prompt", "slate", model="table"))
        write("long", read("text")[:500])
        self.assertEqual(len(generate("--bytes", "30", "--slide", "--prompt-file", "long", model="table")), 30)

    def test_no_limit_without_a_table(self):
        self.assertEqual(len(generate("--bytes", "1000")), 1000)

    def test_a_signal_ends_it_with_what_was_made(self):
        whole = generate("--bytes", "2000", "--prompt", "slate")
        for number in (signal.SIGINT, signal.SIGTERM):
            for form in ([], ["--json"]):
                command, environment = launch("generate", "--checkpoint", "free", "--bytes", "100000000", "--prompt", "slate",
                                              *form, "--output", "made")
                if os.path.exists("made"):
                    os.remove("made")
                process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
                self.wait_for(process, lambda: os.path.exists("made") and (form or os.path.getsize("made") > 100))
                process.send_signal(number)
                errors = process.communicate(timeout=LIMIT)[1].decode()
                self.assertEqual(process.returncode, 75, errors)
                made = read("made")
                if form:
                    sample = json.loads(made)["samples"][0]
                    self.assertEqual(sample["end"], "interrupted")
                    self.assertEqual(len(sample["bytes"]), len(sample["log_probabilities"]))
                    made = bytes(sample["bytes"])
                size = min(len(made), 2000)
                self.assertEqual(made[:size], whole[:size])

    def test_a_signal_to_one_rank_ends_all(self):
        command, environment = launch("generate", "--checkpoint", "free", "--bytes", "100000000", "--samples", "4", "--json",
                                      ranks=2)
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.wait_for(process, lambda: len(self.ranks_of(process)) == 2)
        os.kill(max(self.ranks_of(process)), signal.SIGUSR1)
        made, errors = process.communicate(timeout=LIMIT)
        self.assertEqual(process.returncode, 75, errors)
        found = json.loads(made)["samples"]
        self.assertEqual([sample["end"] for sample in found], ["interrupted"] * 4)

    def wait_for(self, process, condition):
        deadline = time.monotonic() + LIMIT
        while not condition():
            self.assertIsNone(process.poll(), "it ended too early")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        time.sleep(0.5)

    def ranks_of(self, process):
        """Processes of the program below the launcher that catch SIGUSR1 by now."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/status") as lines:
                    fields = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
            except OSError:
                continue
            caught = int(fields["SigCgt"], 16) >> (signal.SIGUSR1 - 1) & 1
            if fields["PPid"] == str(process.pid) and fields["Name"] == "strata" and caught:
                found.append(int(pid))
        return found


class States(unittest.TestCase):
    def test_a_state_continues_as_if_nothing_had_happened(self):
        for model in ("free", "table"):
            whole = generate("--bytes", "50", "--prompt", "slate", model=model)
            self.assertEqual(generate("--bytes", "0", "--prompt", "slate", "--save-state", "s0.h5", model=model), b"")
            self.assertEqual(generate("--bytes", "50", "--load-state", "s0.h5", model=model), whole)
            first = generate("--bytes", "20", "--prompt", "slate", "--save-state", "s20.h5", model=model)
            self.assertEqual(first, whole[:20])
            self.assertEqual(generate("--bytes", "30", "--load-state", "s20.h5", model=model), whole[20:])
            # From state to state.
            more = generate("--bytes", "7", "--load-state", "s20.h5", "--save-state", "s27.h5", model=model)
            self.assertEqual(more + generate("--bytes", "23", "--load-state", "s27.h5", model=model, threads=2), whole[20:])

    def test_many_samples_from_one_state(self):
        arguments = ["--bytes", "30", "--samples", "4"]
        expected = generate(*arguments, "--prompt", "slate")
        generate("--bytes", "0", "--prompt", "slate", "--save-state", "many.h5")
        for how in ({}, {"ranks": 2}):
            self.assertEqual(generate(*arguments, "--load-state", "many.h5", **how), expected)
        result = json.loads(generate(*arguments, "--load-state", "many.h5", "--prompt", " and", "--json"))
        self.assertEqual(result["settings"]["load_state"], "many.h5")
        self.assertEqual([sample["prompt_bytes"] for sample in result["samples"]], [4] * 4)
        self.assertEqual(generate(*arguments, "--load-state", "many.h5", "--prompt", " and"),
                         generate(*arguments, "--prompt", "slate and"))

    def test_a_state_may_be_saved_on_several_ranks(self):
        generate("--bytes", "10", "--prompt", "slate", "--save-state", "two.h5", ranks=2)
        self.assertEqual(generate("--bytes", "10", "--load-state", "two.h5"),
                         generate("--bytes", "20", "--prompt", "slate")[10:])

    def test_a_state_of_another_model_is_refused(self):
        generate("--bytes", "0", "--prompt", "slate", "--save-state", "free.h5")
        message = strata("generate", "--checkpoint", "table", "--bytes", "5", "--load-state", "free.h5", status=1)[1]
        self.assertIn("free.h5 was saved with another model", message)
        damaged = bytearray(read("free.h5"))
        damaged[len(damaged) // 2] ^= 1
        write("damaged.h5", bytes(damaged))
        message = strata("generate", "--checkpoint", "free", "--bytes", "5", "--load-state", "damaged.h5", status=1)[1]
        self.assertIn("damaged.h5", message)


class Refusals(unittest.TestCase):
    def test_one_sentence_names_what_is_wrong(self):
        os.makedirs("folder", exist_ok=True)
        write("junk", b"junk")
        ok = ["--bytes", "5"]
        for arguments, message in (
                (["--bytes", "0"], "--bytes 0 must be at least 1, or 0 with --save-state"),
                (["--bytes", "-3"], "--bytes -3 must"),
                (["--bytes", "many"], "--bytes"),
                ([], "--bytes is required"),
                ([*ok, "--samples", "0"], "--samples 0 must be at least 1"),
                ([*ok, "--batch", "0"], "--batch 0 must be from 1 to "),
                ([*ok, "--batch", "1000000"], "--batch 1000000 must be from 1 to "),
                ([*ok, "--temperature", "-1"], "--temperature -1 must be"),
                ([*ok, "--top-k", "-1"], "--top-k -1 must be"),
                ([*ok, "--top-p", "0"], "--top-p 0 must be"),
                ([*ok, "--min-p", "1.5"], "--min-p 1.5 must be"),
                ([*ok, "--filter-thres", "2"], "--filter-thres 2 must be"),
                ([*ok, "--filter-thres", "0.9", "--top-k", "3"], "--filter-thres and --top-k"),
                ([*ok, "--stop", "256"], "256"),
                ([*ok, "--stop", "x"], "--stop"),
                ([*ok, "--prompt-file", "missing"], "missing cannot be read as a prompt"),
                ([*ok, "--prompt-file", "folder"], "folder is a folder and cannot be read as a prompt"),
                ([*ok, "--prompt-file", "-", "--prompt-file", "-"], "--prompt-file - can be given once only"),
                ([*ok, "--samples", "2", "--output", "unmade"], "--output unmade is one file for 2 samples; put {}"),
                ([*ok, "--prompt", "a", "--prompt", "b", "--output", "unmade"], "--output unmade is one file for 2 samples"),
                ([*ok, "--json", "--output", "x{}"], "--output x{}: --json writes one object"),
                ([*ok, "--output", "missing/file"], "cannot write missing/file: No such file"),
                ([*ok, "--samples", "2", "--save-state", "s.h5"], "--save-state keeps the state of one sample, not of 2"),
                ([*ok, "--save-state", "missing/s.h5"], "missing"),
                ([*ok, "--load-state", "missing.h5"], "missing.h5"),
                ([*ok, "--load-state", "junk"], "junk"),
                ([*ok, "--load-state", "data.h5"], "data.h5"),
                ([*ok, "surplus"], "surplus"),
                ([*ok, "--unknown"], "--unknown")):
            with self.subTest(" ".join(arguments)):
                made, errors = strata("generate", "--checkpoint", "free", *arguments, status=1)
                own = [line for line in errors.splitlines() if line.startswith("strata: ")]
                self.assertEqual((made, len(own)), (b"", 1), errors)
                self.assertIn(message, own[0])
        self.assertFalse(os.path.exists("unmade"))
        self.assertIn("missing", strata("generate", "--checkpoint", "missing", *ok, status=1)[1])

    def test_once_from_several_ranks(self):
        for arguments, message in ((["--prompt-file", "missing"], "missing cannot be read"),
                                   (["--output", "missing/file"], "cannot write missing/file")):
            errors = strata("generate", "--checkpoint", "free", "--bytes", "5", *arguments, status=1, ranks=2)[1]
            self.assertEqual(len(re.findall(r"^strata: ", errors, re.M)), 1, errors)
            self.assertIn(message, errors)
            self.assertNotIn("MPI_ABORT", errors)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
