# SPDX-License-Identifier: Apache-2.0
"""The parts of perf/compare_peer.py, which trains and runs the same models with this program and with the Python package
`mblm` on PyTorch:

  cases.py      models, lengths and steps; the deck of a case
  sides.py      both programs: command lines, environment, limits, what they answer
  worker.py     the package's side: runs in the virtual environment, the only file that imports torch
  report.py     medians, ratios and the table
"""
