"""What the size of a log costs: the same questions to a small and to a large one, in turn.

`python -m bench.log_size [--events 1000000] [--small 100000] [--store sqlite] [--store postgres]
[--json FILE]`; Postgres comes from the development dependencies.  Both logs lie in a temporary folder and are
gone afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from bench.results import Results, add_option
from eventstore.events import NO_STREAM, Append, Document, HeadChange, NewEvent, NewStream, Unit
from eventstore.ports import EventStore
from eventstore.sql.postgres import PostgresEventStore
from eventstore.sql.sqlite import SqliteEventStore
from runtime.response.items import new_response_id
from runtime.response.standing import OVER, QUEUED, RUNNING
from tests.postgres_server import PostgresServer

EVENTS: Final = 100
"""Of a response."""
PER_RECORD: Final = 10
PROJECTS: Final = 20
AT_ONCE: Final = 512
"""Responses that grow side by side."""
RARE: Final = 500
"""One of so many fails."""
ROUNDS: Final = 300
EVENT_BYTES: Final = 200
"""What one takes on disk, at most, with its share of everything beside it and of the write-ahead log."""
DELTA: Final = NewEvent("text_appended", b'{"d":[" another"]}')
LISTED: Final = (*RUNNING, *OVER)

Ask = Callable[["Log"], Awaitable[object]]


@dataclass(slots=True)
class Log:
    """A log, and some of what it holds."""

    store: EventStore
    names: list[str]
    """Of its responses, in the order of their creation."""
    position: int
    chance: random.Random

    def any(self) -> str:
        """The name of a response."""
        return self.chance.choice(self.names)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.log_size", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="of the large log (default: 1000000)")
    parser.add_argument("--small", type=int, default=100_000, help="of the small log (default: 100000)")
    parser.add_argument(
        "--store", action="append", choices=("sqlite", "postgres"), help="which (default: both)"
    )
    add_option(parser)
    options = parser.parse_args()
    results = Results("log_size", options.json)
    stores = options.store or ["sqlite", "postgres"]
    needed = (options.events + options.small) * EVENT_BYTES * len(stores)
    with tempfile.TemporaryDirectory(prefix="rsb-") as folder:
        free = shutil.disk_usage(folder).free
        if free < 2 * needed:
            parser.error(f"{folder} has {free >> 20} MiB free, and this needs {2 * needed >> 20}: set TMPDIR")
        print("| a large log beside a small one | " + " | ".join(QUESTIONS) + " |", flush=True)
        print("|---" * (1 + len(QUESTIONS)) + "|")
        if "sqlite" in stores:
            asyncio.run(_sqlite(results, Path(folder), options.small, options.events))
        if "postgres" in stores:
            database = PostgresServer()
            try:
                database.start()
                asyncio.run(_postgres(results, database, options.small, options.events))
            finally:
                database.remove()


async def _sqlite(results: Results, folder: Path, *sizes: int) -> None:
    stores = []
    for number in range(len(sizes)):
        place = folder / str(number)
        await asyncio.to_thread(place.mkdir)
        stores.append(await SqliteEventStore.open(place, may_own=True))
    logs = [await _built(store, size) for store, size in zip(stores, sizes, strict=True)]
    await _compare("SQLite", logs, sizes, results)


async def _postgres(results: Results, database: PostgresServer, *sizes: int) -> None:
    logs = []
    for size in sizes:
        url = database.make(f"size_{size}")
        logs.append(await _built(PostgresEventStore(url), size))
        connection = await asyncpg.connect(url)
        await connection.execute("ANALYZE")  # As the server does by itself within minutes.
        await connection.close()
    await _compare("Postgres", logs, sizes, results)


async def _compare(name: str, logs: Sequence[Log], sizes: Sequence[int], results: Results) -> None:
    cells = []
    for question, ask in QUESTIONS.items():
        small, large = await _medians(ask, logs)
        for size, took in zip(sizes, (small, large), strict=True):
            results.add(store=name, question=question, events=size, ms=took * 1e3)
        cells.append(f"{large * 1e3:.2f} ms ({large / small:.2f})")
    print(f"| {name}, {sizes[1]:,} events beside {sizes[0]:,} | {' | '.join(cells)} |", flush=True)
    for log in logs:
        await log.store.aclose()


async def _medians(ask: Ask, logs: Sequence[Log]) -> list[float]:
    """Seconds that the question takes, for each log; asked in turn, so that both have the same machine."""
    took: list[list[float]] = [[] for _ in logs]
    for _ in range(ROUNDS):
        for log, times in zip(logs, took, strict=True):
            began = time.perf_counter()
            await ask(log)
            times.append(time.perf_counter() - began)
    return [statistics.median(times) for times in took]


async def _built(store: EventStore, events: int) -> Log:
    """A log of so many events, written by the store itself, many streams in a unit."""
    names: list[str] = []
    while len(names) * EVENTS < events:
        page = [new_response_id(os.urandom(16)) for _ in range(min(AT_ONCE, events // EVENTS - len(names)))]
        for version in range(NO_STREAM, EVENTS - 1, PER_RECORD):
            ends = version + PER_RECORD == EVENTS - 1
            appends = [_append(name, len(names) + n, version, ends=ends) for n, name in enumerate(page)]
            await store.append(Unit(appends, documents=_documents(page) if ends else ()))
        names += page
    (record,) = await store.append(Unit([_append("last", 0, NO_STREAM)]))
    return Log(store, names, record.position, random.Random(7))


def _append(name: str, number: int, version: int, *, ends: bool = False) -> Append:
    new = None
    if version == NO_STREAM:
        attributes = {"model": "simulated", "created_at": str(number), "background": "false"}
        new = NewStream("response", f"project-{number % PROJECTS}", "in_progress", attributes=attributes)
    over = HeadChange("failed" if number % RARE == 0 else "completed", release=True) if ends else None
    return Append(name, version, 1, [DELTA] * PER_RECORD, new=new, change=over)


def _documents(names: Sequence[str]) -> Sequence[Document]:
    return [Document(name, kind, b"x" * 500) for name in names for kind in ("snapshot", "items")]


async def _create_and_append(log: Log) -> None:
    name = new_response_id(os.urandom(16))
    await log.store.append(Unit([_append(name, 0, NO_STREAM)]))
    await log.store.append(Unit([_append(name, 0, PER_RECORD - 1, ends=True)]))


async def _read(log: Log) -> None:
    name = log.any()
    assert await log.store.document(name, "snapshot") is not None
    assert len([record async for record in log.store.read(name)]) == EVENTS // PER_RECORD


async def _resume(log: Log) -> None:
    assert [record async for record in log.store.read(log.any(), after=EVENTS - 10)]


async def _follow(log: Log) -> None:
    assert await log.store.read_all(log.chance.randrange(log.position - 100), 100)


async def _list(log: Log) -> None:
    await log.store.heads(category="response", tenant="project-7", states=LISTED, newest_first=True, limit=21)


async def _list_behind(log: Log) -> None:
    head = await log.store.head(log.any())
    assert head is not None
    await log.store.heads(
        category="response",
        tenant=head.tenant,
        states=LISTED,
        after=head.created,
        newest_first=True,
        limit=21,
    )


async def _list_failed(log: Log) -> None:
    await log.store.heads(
        category="response", tenant="project-0", states=["failed"], newest_first=True, limit=21
    )


async def _waiting(log: Log) -> None:
    assert not await log.store.heads(states=QUEUED, limit=256)


QUESTIONS: Final[dict[str, Ask]] = {
    "create, append": _create_and_append,
    "read": _read,
    "resume": _resume,
    "follow the log": _follow,
    "list": _list,
    "list, in the middle": _list_behind,
    "list what failed": _list_failed,
    "what waits": _waiting,
}


if __name__ == "__main__":
    main()
