#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How a program ends: exit status, messages and signals, with and without mpiexec.

Usage: test_runtime.py RUNTIME_CASES MPIEXEC NUMPROC_FLAG [MPIEXEC_FLAG...]
"""
import os
import re
import signal
import subprocess
import sys
import time
import unittest

PROGRAM, MPIEXEC, NUMPROC_FLAG, *FLAGS = sys.argv[1:]
LIMIT = 60.0


def run(ranks, *arguments):
    """Exit status, standard output and the program's own lines (`strata: ...`) of a run."""
    command = [PROGRAM, *arguments]
    if ranks > 1:
        command = [MPIEXEC, NUMPROC_FLAG, str(ranks), *FLAGS, *command]
    result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    own = [line for line in result.stderr.splitlines() if line.startswith("strata: ")]
    return result.returncode, result.stdout, own, result.stderr


class Statuses(unittest.TestCase):
    def test_success(self):
        for ranks in (1, 2, 4):
            code, _, own, _ = run(ranks, "success")
            self.assertEqual((code, own), (0, []), ranks)

    def test_nothing_else_is_printed_without_mpiexec(self):
        self.assertEqual(run(1, "success")[3], "")
        self.assertEqual(run(1, "all_throw")[3], "strata: the deck is bad\n")

    def test_status_of_the_body(self):
        for ranks in (1, 2):
            self.assertEqual(run(ranks, "status")[0], 75, ranks)
        self.assertEqual(run(4, "status_on_last")[0], 75)


class Errors(unittest.TestCase):
    def test_the_same_error_everywhere_is_printed_once_on_one_line(self):
        for ranks in (1, 2, 4):
            start = time.monotonic()
            code, _, own, text = run(ranks, "all_throw")
            self.assertEqual((code, own), (1, ["strata: the deck is bad"]), ranks)
            self.assertNotIn("MPI_ABORT", text)
            self.assertLess(time.monotonic() - start, 10)

    def test_other_exceptions(self):
        self.assertEqual(run(1, "all_out_of_memory")[2], ["strata: out of memory"])
        code, _, own, _ = run(1, "not_an_exception")
        self.assertEqual((code, own), (1, ["strata: an exception of unknown type"]))
        code, _, own, _ = run(1, "no_such_case")
        self.assertEqual((code, own), (1, ["strata: no case named 'no_such_case'"]))

    def test_one_rank_fails_and_the_others_return(self):
        for ranks in (2, 4):
            code, _, own, text = run(ranks, "last_throws")
            self.assertEqual((code, own), (1, ["strata: only one rank failed"]), ranks)
            self.assertNotIn("MPI_ABORT", text)

    def test_one_rank_fails_and_the_others_wait_for_it(self):
        for ranks in (2, 4):
            start = time.monotonic()
            code, _, own, _ = run(ranks, "last_throws_while_others_wait")
            self.assertNotEqual(code, 0)
            self.assertEqual(own, ["strata: only one rank failed"], ranks)
            self.assertLess(time.monotonic() - start, 20)

    def test_several_failed_ranks_print_once(self):
        code, _, own, _ = run(4, "two_throw_while_others_wait")
        self.assertNotEqual(code, 0)
        self.assertEqual(own, ["strata: two ranks failed"])


class Environment(unittest.TestCase):
    def test_kokkos_gets_its_arguments_and_no_others(self):
        _, output, _, text = run(1, "arguments", "--help", "--kokkos-disable-warnings", "--threads=3", "section.key=1")
        self.assertEqual(output, "[--help][--threads=3][section.key=1]")
        self.assertEqual(text, "")

    def test_long_command_lines(self):
        code, output, _, text = run(1, "arguments", *["x" * 100] * 10000)
        self.assertEqual((code, len(output), text), (0, 10000 * 102, ""))

    def test_only_one_rank_logs(self):
        for ranks in (1, 4):
            text = run(ranks, "log")[3]
            self.assertEqual(len(re.findall(r"^\d\d:\d\d:\d\d info: a remark$", text, re.M)), 1, text)

    def test_provenance(self):
        for ranks in (1, 2):
            output = run(ranks, "provenance")[1]
            version, commit, kokkos, backend, blas, host, when, said_ranks, threads, peak = output.strip().split("|")
            self.assertRegex(version, r"^\d+\.\d+\.\d+$")
            self.assertRegex(commit, r"^([0-9a-f]{7,40}(-dirty)?|unknown)$")
            self.assertRegex(kokkos, r"^\d+\.\d+\.\d+$")
            self.assertRegex(backend, r"^\w+ x\d+$")
            self.assertTrue(blas and host)
            self.assertRegex(when, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
            self.assertEqual(int(said_ranks), ranks)
            self.assertEqual(threads, os.environ.get("OMP_NUM_THREADS", threads))
            self.assertTrue(1e6 < float(peak) < 1e10, peak)


class Signals(unittest.TestCase):
    def start(self):
        process = subprocess.Popen([PROGRAM, "wait_for_stop"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def test_a_stop_request_ends_in_the_status_for_interrupted(self):
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            process = self.start()
            process.send_signal(number)
            self.assertEqual(process.wait(LIMIT), 75, number)

    def test_the_second_interrupt_is_immediate(self):
        process = self.start()
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.stdout.readline(), "stopping\n")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(LIMIT), -signal.SIGINT)

    def test_a_second_sigterm_changes_nothing(self):
        process = self.start()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.stdout.readline(), "stopping\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(LIMIT), 75)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
