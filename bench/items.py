"""What the size of an item costs: `python -m bench.items [--kib 1,4,16,64,256] [--json FILE]`.

The core in one process over SQLite on disk, the simulated model, no HTTP: responses whose input has so many
KiB and whose answer is short, and responses whose answer has about so many; the table has what it came to.
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
from bench.one_process import OneProcess
from bench.results import Results, add_option
from eventstore.sql.sqlite import SqliteEventStore
from runtime.response.commands import Create
from runtime.response.replay import fold_stream
from tests.unit.actors.test_supervisor import create

WORD_BYTES: Final = 8
"""Of a word of the question."""
DELTA_BYTES: Final = 10
"""Of a delta of the simulated model, which grow with their number, from 8 to 12."""


def asking(kib: int) -> Create:
    """A long question with a short answer."""
    command = create("simulated?deltas=8")
    part = {"type": "input_text", "text": "lengthy " * (kib * 1024 // WORD_BYTES)}
    message = {"type": "message", "role": "user", "content": [part]}
    return replace(command, request=replace(command.request, input=(message,)))


def answered(kib: int) -> Create:
    """A short question with an answer of about so many KiB."""
    return create(f"simulated?deltas={kib * 1024 // DELTA_BYTES}")


WHERE: Final[Mapping[str, Callable[[int], Create]]] = {"input": asking, "answer": answered}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.items", description=__doc__)
    parser.add_argument("--kib", default="1,4,16,64,256", help="sizes, in KiB of text")
    parser.add_argument("--rounds", type=int, default=5, help="whose median is told (default: 5)")
    add_option(parser)
    options = parser.parse_args()
    sizes = [int(kib) for kib in options.kib.split(",")]
    asyncio.run(_measure(sizes, options.rounds, Results("items", options.json)))


async def _measure(sizes: list[int], rounds: int, results: Results) -> None:
    print("| item | KiB | whole, ms | its CPU, ms | CPU, ms a KiB |")
    print("|---" * 5 + "|", flush=True)
    with tempfile.TemporaryDirectory(prefix="rsb-") as folder:
        store = await SqliteEventStore.open(Path(folder), may_own=True)
        try:
            async with OneProcess(store) as process:
                await _respond(process, store, answered(4))  # What is made once is made now.
                for where, command in WHERE.items():
                    for kib in sizes:
                        seen = [await _respond(process, store, command(kib)) for _ in range(rounds)]
                        said = statistics.median(bytes_ for _, bytes_ in seen) / 1024
                        costs = [cost for cost, _ in seen]
                        _tell(where, said if where == "answer" else float(kib), costs, results)
        finally:
            await store.aclose()


async def _respond(process: OneProcess, store: SqliteEventStore, command: Create) -> tuple[Cost, int]:
    """What the whole response costs, and the bytes of its answer."""
    async with process.bus.subscribe(command.id) as live, asyncio.timeout(WAIT_S):
        watch, last = Watch(), False
        await process.client.create(command)
        while not last:
            batch = await live.next(WAIT_S)
            if batch is not None:
                last = batch.last
            else:  # The subscription lost what is too large for it: the log knows.
                head = await store.head(command.id)
                last = head is not None and head.state == "completed"
        cost = watch.cost()
    state, _ = await fold_stream(store, command.id)
    return cost, sum(len(part["text"]) for item in state.output for part in item["content"])


def _tell(where: str, kib: float, costs: list[Cost], results: Results) -> None:
    """A row of Markdown; the same goes to the results."""
    wall = statistics.median(cost.wall for cost in costs) * 1e3
    cpu = statistics.median(cost.cpu for cost in costs) * 1e3
    results.add(where=where, kib=kib, whole_ms=wall, cpu_ms=cpu)
    print(f"| {where} | {kib:,.1f} | {wall:,.1f} | {cpu:,.1f} | {cpu / kib:,.3f} |", flush=True)


if __name__ == "__main__":
    main()
