"""Fails where Rayspond became slow: by ratios to the bare echo of the same run, with generous margins.

`python -m bench.guard` takes about a minute.  What a change costs in detail is for `make bench` to tell.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import systems
from bench.load import Load, drive
from bench.systems import System
from tests.fakes.script import words

STREAMS_MIN: Final = 0.05
"""Of the echo's streams a second of one delta, with 32 clients; 0.14 where this was written."""
DELTAS_MIN: Final = 0.12
"""Of the echo's deltas a second in streams of 100, with 16 clients; 0.34 where this was written."""
SECONDS: Final = 3.0
ROUNDS: Final = 3
"""The best of so many counts: whatever else runs on the machine makes figures worse, never better."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What one system reached at its best."""

    streams: float
    deltas: float


def main() -> None:
    """Exit with 1 where a ratio is below its least."""
    with tempfile.TemporaryDirectory(prefix="rsg-", ignore_cleanup_errors=True) as folder:
        floor, ours = _measure(Path(folder))
    slow = False
    for what, ratio, least in (
        ("streams/s", ours.streams / floor.streams, STREAMS_MIN),
        ("deltas/s", ours.deltas / floor.deltas, DELTAS_MIN),
    ):
        slow |= ratio < least
        print(f"{ratio:.2f} of the bare echo's {what}; at least {least:.2f} is asked for")
    sys.exit(1 if slow else 0)


def _measure(scratch: Path) -> Iterator[Speed]:
    with systems.echo(scratch) as echo:
        yield asyncio.run(_speed(echo))
    with systems.upstream(scratch) as url, systems.rayspond("shared", url, scratch) as rayspond:
        yield asyncio.run(_speed(rayspond))


async def _speed(system: System) -> Speed:
    async def best(clients: int, deltas: int) -> float:
        said = "".join(words(deltas)) if system.model == "fake" else None
        load = Load("guard", system.scripted(deltas), clients, deltas, SECONDS)
        return max([(await drive(system.url, load, said)).deltas_per_s for _ in range(ROUNDS)])

    return Speed(streams=await best(32, 1), deltas=await best(16, 100))


if __name__ == "__main__":
    main()
