#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Passes when a command fails and says why.

Usage: must_fail.py TEXT COMMAND [ARGUMENT...]     TEXT must occur in the output, and the exit status must not be 0
"""
import subprocess
import sys

text, *command = sys.argv[1:]
result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
print(result.stdout)
if result.returncode == 0:
    sys.exit("the command succeeded")
if text not in result.stdout:
    sys.exit(f"the output lacks: {text}")
