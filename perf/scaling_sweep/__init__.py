# SPDX-License-Identifier: Apache-2.0
"""The parts of perf/scaling. A sweep lives in a folder of results:

  plan.jsonl           a line per planned run: sweep, position on its axis, case (planning.py)
  results/ID.json      what became of one case: done with its numbers, or failed with the reason (execution.py)
  limits.jsonl         limits of the machine, from bench_comm (limits.py)
  jobs.jsonl           jobs that were submitted (execution.py)
  table.jsonl, .md     everything in one table (collection.py)
"""
