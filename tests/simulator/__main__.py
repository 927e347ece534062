"""`python -m tests.simulator --seeds 0:1000`: run seeds, say which fail, and how to see one again."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.simulator.simulation import Outcome, simulate

TRACE_LINES = 60
"""How much of the trace is shown of a seed that failed among many."""


def main() -> int:
    """Run what the arguments ask for; 1 where a seed fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", default="0:100", help="one seed, or FIRST:END (END is not run) [0:100]")
    parser.add_argument("--size", type=int, default=1, help="multiplies clients and duration [1]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes [the cores]")
    parser.add_argument("--trace", action="store_true", help="print the whole trace of every seed")
    given = parser.parse_args()
    first, _, end = given.seeds.partition(":")
    seeds = range(int(first), int(end) if end else int(first) + 1)
    began, failed, records = time.monotonic(), [], 0
    for count, outcome in enumerate(_outcomes(seeds, given.size, given.jobs), 1):
        records += outcome.records
        if outcome.problems:
            failed.append(outcome.seed)
        if outcome.problems or given.trace:
            _show(outcome, given.size, None if given.trace else TRACE_LINES)
        if count % 100 == 0 or count == len(seeds):
            seconds = time.monotonic() - began
            print(f"{count} of {len(seeds)} seeds, {records} records, {seconds:.0f} s, {len(failed)} failed")
    if failed:
        print("failed:", *failed)
    return 1 if failed else 0


def _outcomes(seeds: range, size: int, jobs: int) -> Iterator[Outcome]:
    if len(seeds) == 1 or jobs == 1:
        yield from (simulate(seed, size=size) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(partial(simulate, size=size), seeds, chunksize=8)


def _show(outcome: Outcome, size: int, lines: int | None) -> None:
    for line in outcome.trace[-lines:] if lines else outcome.trace:
        print(line)
    for problem in outcome.problems:
        print(f"seed {outcome.seed}: {problem}")
    print(
        f"seed {outcome.seed}: {outcome.responses} responses, {outcome.records} records, "
        f"{outcome.seconds:.1f} virtual s, log {outcome.digest[:16]}; again: "
        f"python -m tests.simulator --seeds {outcome.seed} --size {size} --trace"
    )


if __name__ == "__main__":
    sys.exit(main())
