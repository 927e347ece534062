"""What the size of an item costs: `python -m bench.items [--kib 1,4,16,64,256,1024] [--json FILE]`.

The core in one process over SQLite on disk, the simulated model, no HTTP: responses whose input has so many
KiB and whose answer is short, and responses whose answer has so many.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.chain import WAIT_S, Cost, Watch
from bench.load import DELTA
from bench.one_process import OneProcess
from bench.results import Results, add_option
from eventstore.sql.sqlite import SqliteEventStore
from runtime.response.commands import Create
from tests.unit.actors.test_supervisor import create

WORD_BYTES: Final = 8
"""Of a word of the question.  Deltas of the simulated model have 8 to 12."""


def asking(kib: int) -> Create:
    """A long question with a short answer."""
    command = create("simulated?deltas=8")
    part = {"type": "input_text", "text": "lengthy " * (kib * 1024 // WORD_BYTES)}
    message = {"type": "message", "role": "user", "content": [part]}
    return replace(command, request=replace(command.request, input=(message,)))


def answered(kib: int) -> Create:
    """A short question with a long answer, of at least so many KiB: deltas have 8 to 12 bytes."""
    return create(f"simulated?deltas={kib * 1024 // WORD_BYTES}")


WHERE: Final[Mapping[str, Callable[[int], Create]]] = {"input": asking, "answer": answered}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.items", description=__doc__)
    parser.add_argument("--kib", default="1,4,16,64,256,1024", help="sizes, in KiB of text")
    parser.add_argument("--rounds", type=int, default=5, help="whose median is told (default: 5)")
    add_option(parser)
    options = parser.parse_args()
    sizes = [int(kib) for kib in options.kib.split(",")]
    asyncio.run(_measure(sizes, options.rounds, Results("items", options.json)))


async def _measure(sizes: list[int], rounds: int, results: Results) -> None:
    print("| KiB in the | KiB, at least | whole, ms | its CPU, ms | CPU, ms a KiB | deltas |")
    print("|---" * 6 + "|", flush=True)
    with tempfile.TemporaryDirectory(prefix="rsb-") as folder:
        store = await SqliteEventStore.open(Path(folder), may_own=True)
        try:
            async with OneProcess(store) as process:
                await _respond(process, answered(4))  # What is made once is made now.
                for where, command in WHERE.items():
                    for kib in sizes:
                        seen = [await _respond(process, command(kib)) for _ in range(rounds)]
                        _tell(where, kib, seen, results)
        finally:
            await store.aclose()


async def _respond(process: OneProcess, command: Create) -> tuple[Cost, int]:
    """What the whole response costs, and how many deltas it had."""
    async with process.bus.subscribe(command.id) as live:
        watch, deltas, last = Watch(), 0, False
        await process.client.create(command)
        while not last:
            batch = await live.next(WAIT_S)
            if batch is None:
                raise RuntimeError(f"{command.id} said nothing for {WAIT_S:.0f} s")
            deltas += sum(frame.count(DELTA) for frame in batch.frames or ())
            last = batch.last
        return watch.cost(), deltas


def _tell(where: str, kib: int, seen: list[tuple[Cost, int]], results: Results) -> None:
    """A row of Markdown; the same goes to the results."""
    wall, cpu = (
        statistics.median(times) * 1e3
        for times in zip(*((cost.wall, cost.cpu) for cost, _ in seen), strict=True)
    )
    results.add(where=where, kib=kib, whole_ms=wall, cpu_ms=cpu)
    print(
        f"| {where} | {kib:,} | {wall:,.1f} | {cpu:,.1f} | {cpu / kib:,.3f} | {seen[-1][1]:,} |", flush=True
    )


if __name__ == "__main__":
    main()
