"""`exclusive` beside `shared` in the same minutes: `python -m bench.exclusive [--rounds 6]`.

A server of each runs, and one client has a stream of one delta now from the one, now from the other: on a
machine whose speed drifts, two rows of the table of `make bench` are minutes apart.  `make bench`
ends with this.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.load import Load, drive, percentile
from bench.results import Results, add_option
from bench.systems import System, rayspond, upstream

EVERY_S: Final = 0.7
"""Seconds from one stream to the next: the supervisor asks twice a second whether a host is free again.
Sooner, each stream would start one more."""
STREAMS: Final = 6
"""Of one server before it is the other's turn."""
ROUNDS: Final = 6


async def whole(system: System, streams: int) -> list[float]:
    """Seconds that so many streams took, each checked, one every `EVERY_S`."""
    load = Load("in turn", system.scripted(1), 1, 1, 600, EVERY_S, streams)
    return list((await drive(system.url, load, system.said(1))).whole)


def table(scratch: Path, results: Results, rounds: int = ROUNDS) -> str:
    """What both took, as Markdown."""
    took: dict[str, list[float]] = {"shared": [], "exclusive": []}
    folders = {kind: scratch / f"turns-{kind}" for kind in took}
    with ExitStack() as stack:
        url = stack.enter_context(upstream(scratch))
        systems = {}
        for kind, folder in folders.items():
            folder.mkdir()
            systems[kind] = stack.enter_context(rayspond(kind, url, folder))
        for system in systems.values():
            asyncio.run(whole(system, 3))
        for _ in range(rounds):
            for kind, system in systems.items():
                took[kind] += asyncio.run(whole(system, STREAMS))
    lines = [f"| 1 client, 1 delta every {EVERY_S:g} s | p50 / p90 ms | beside shared |", "|---|---|---|"]
    for kind, seconds in took.items():
        p50, p90 = (1e3 * percentile(seconds, share) for share in (0.5, 0.9))
        beside = p50 / (1e3 * percentile(took["shared"], 0.5))
        results.add(isolation=kind, p50_ms=p50, p90_ms=p90, beside_shared=beside)
        lines.append(f"| {kind} | {p50:.1f} / {p90:.1f} | {beside:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.exclusive", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"turns of {STREAMS} streams (default: {ROUNDS})"
    )
    add_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rsb-", ignore_cleanup_errors=True) as folder:
        print(table(Path(folder), Results("exclusive", options.json), options.rounds))


if __name__ == "__main__":
    main()
