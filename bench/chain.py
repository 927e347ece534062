"""What a long conversation costs: the first delta of each turn of a chain of `previous_response_id`.

`python -m bench.chain [--turns 200] [--chains 5] [--sealed] [--json FILE]`: the core in one
process over SQLite on disk, the simulated model, no HTTP.
With `--sealed` every turn is sealed before the next one begins.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from actors.context import Context
from bench.one_process import OneProcess
from bench.results import Results, add_option
from eventstore.sealing import seal
from eventstore.sql.sqlite import SqliteEventStore
from runtime.response.commands import Create
from tests.unit.actors.test_supervisor import create

MODEL: Final = "simulated?deltas=30"
DELTA: Final = b"response.output_text.delta"
WAIT_S: Final = 30.0
SHOWN: Final = (1, 11, 41, 91, 191, 391)
AROUND: Final = 10
"""Turns from each of these on, whose median is told."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds by the clock, and of the process on a processor: others on the machine do not move these."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn costs."""

    first: Cost
    """From its creation to its first delta."""
    reading: Cost
    """To read what it continues, and nothing else."""
    alone: Cost
    """The first delta of a response that continues nothing, at the same time."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.chain", description=__doc__)
    parser.add_argument("--turns", type=int, default=200, help="of a chain (default: 200)")
    parser.add_argument("--chains", type=int, default=5, help="whose median is told (default: 5)")
    parser.add_argument("--sealed", action="store_true", help="seal every turn before the next one begins")
    add_option(parser)
    options = parser.parse_args()
    chains = asyncio.run(_measure(options.turns, options.chains, sealed=options.sealed))
    print(table(chains, Results("chain-sealed" if options.sealed else "chain", options.json)))


async def _measure(turns: int, chains: int, *, sealed: bool) -> list[list[Turn]]:
    with tempfile.TemporaryDirectory(prefix="rsb-") as folder:
        store = await SqliteEventStore.open(Path(folder), may_own=True)
        try:
            async with OneProcess(store) as process:
                await _chain(process, 3, sealed=sealed)  # What is made once is made now.
                return [await _chain(process, turns, sealed=sealed) for _ in range(chains)]
        finally:
            await store.aclose()


async def _chain(process: OneProcess, turns: int, *, sealed: bool) -> list[Turn]:
    chain: list[Turn] = []
    parent: str | None = None
    for _ in range(turns):
        command = create(MODEL, previous_response_id=parent)
        alone = await _first_delta(process, create(MODEL))
        watch = Watch()
        await Context(process.store).prepare(command, None)
        reading = watch.cost()
        chain.append(Turn(await _first_delta(process, command), reading, alone))
        parent = command.id
        if sealed:
            head = await process.store.head(parent)
            assert head is not None, "it was answered"
            await seal(process.store, [head], "the bench", "to measure it")
    return chain


async def _first_delta(process: OneProcess, command: Create) -> Cost:
    """What it costs; returns once the response has ended."""
    async with process.bus.subscribe(command.id) as live:
        watch, cost = Watch(), None
        await process.client.create(command)
        last = False
        while not last:
            batch = await live.next(WAIT_S)
            if batch is None:
                raise RuntimeError(f"{command.id} said nothing for {WAIT_S:.0f} s")
            if cost is None and any(DELTA in frame for frame in batch.frames or ()):
                cost = watch.cost()
            last = batch.last
        assert cost is not None, "it has deltas"
        return cost


class Watch:
    """Measures from its creation on."""

    def __init__(self) -> None:
        self._began = Cost(time.perf_counter(), time.process_time())

    def cost(self) -> Cost:
        """What passed since then."""
        return Cost(time.perf_counter() - self._began.wall, time.process_time() - self._began.cpu)


def table(chains: Sequence[Sequence[Turn]], results: Results) -> str:
    """Medians as Markdown, of all chains and of some turns from each one on; milliseconds.

    The same goes to the results.
    """
    lines = [
        "| turn | first delta | its CPU | of that reading | beyond it | of a first turn |",
        "|---" * 6 + "|",
    ]
    for number in SHOWN:
        turns = [turn for chain in chains for turn in chain[number - 1 : number - 1 + AROUND]]
        if len(turns) < len(chains) * AROUND:
            break
        wall = statistics.median(turn.first.wall for turn in turns) * 1e3
        first, reading, alone = (
            statistics.median(cost.cpu for cost in costs) * 1e3
            for costs in zip(*((turn.first, turn.reading, turn.alone) for turn in turns), strict=True)
        )
        results.add(
            turn=number,
            first_ms=wall,
            cpu_ms=first,
            reading_ms=reading,
            beyond_ms=first - reading,
            alone_ms=alone,
        )
        beyond = f"{first - reading:.1f} ({(first - reading) / alone:.2f})"
        lines.append(f"| {number} | {wall:.1f} | {first:.1f} | {reading:.1f} | {beyond} | {alone:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
