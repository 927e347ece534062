"""`exclusive` beside `shared` in the same minutes: `python -m bench.exclusive [--rounds 6]`.

A server of each runs, and one client has a stream of one delta now from the one, now from the other: on a
machine whose speed drifts, two rows of `make bench` are minutes apart.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.load import Load, drive, percentile
from bench.systems import System, rayspond, upstream
from tests.fakes.script import words

EVERY_S: Final = 0.7
"""Seconds from one stream to the next: the supervisor asks twice a second whether a host is free again."""
STREAMS: Final = 6
"""Of one server before it is the other's turn."""


async def whole(system: System, streams: int) -> list[float]:
    """Seconds that so many streams took, each checked, one every `EVERY_S`."""
    load = Load("in turn", system.scripted(1), 1, 1, 600, EVERY_S, streams)
    return list((await drive(system.url, load, "".join(words(1)))).whole)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help=f"turns of {STREAMS} streams (default: 6)")
    rounds = parser.parse_args().rounds
    took: dict[str, list[float]] = {"shared": [], "exclusive": []}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        url = stack.enter_context(upstream(Path(folder)))
        systems = {kind: stack.enter_context(rayspond(kind, url, Path(folder))) for kind in took}
        for system in systems.values():
            asyncio.run(whole(system, 3))
        for _ in range(rounds):
            for kind, system in systems.items():
                took[kind] += asyncio.run(whole(system, STREAMS))
    print("| isolation | p50 / p90 ms | beside shared |\n|---|---|---|")
    for kind, seconds in took.items():
        p50, p90 = (1e3 * percentile(seconds, share) for share in (0.5, 0.9))
        print(f"| {kind} | {p50:.1f} / {p90:.1f} | {p50 / (1e3 * percentile(took['shared'], 0.5)):.2f} |")


if __name__ == "__main__":
    main()
