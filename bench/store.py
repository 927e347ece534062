"""The log alone: how many commits and rows each store takes, one after the other on the same disk.

`python -m bench.store [--seconds 3]`; Postgres comes from the development dependencies.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eventstore.events import NO_STREAM, Append, NewEvent, NewStream, Unit
from eventstore.ports import EventStore
from eventstore.sql.postgres import PostgresEventStore
from eventstore.sql.sqlite import SqliteEventStore
from tests.postgres_server import PostgresServer

PAYLOAD = b'{"d":["Hello, "]}'
NEW = NewStream("response", "default", "in_progress")
WIDTHS = (1, 16, 100)
"""Streams that append at once, each one row at a time."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a store reached, in rows a second."""

    name: str
    alone: Sequence[float]
    """By the number of streams that append at once."""
    hundreds: float
    """With units of a hundred rows, one after the other."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="length of each measurement (default: 3)")
    options = parser.parse_args()
    database = PostgresServer()
    try:
        database.start()
        rows = asyncio.run(_measure(database, options.seconds))
    finally:
        database.remove()
    print(table(rows))


async def _measure(database: PostgresServer, seconds: float) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="rsb-", dir=database.folder.parent) as folder:
        sqlite = await SqliteEventStore.open(Path(folder), may_own=True)
        rows = [await _row("SQLite", [sqlite], seconds)]
        await sqlite.aclose()
    for processes in (1, 4):
        url = database.make(f"bench_{processes}")
        # A store each is what processes have, but here they share one: their work is not done side by side.
        stores = [PostgresEventStore(url) for _ in range(processes)]
        rows.append(await _row(f"Postgres, writers: {processes}", stores, seconds))
        for store in stores:
            await store.aclose()
    return rows


async def _row(name: str, stores: Sequence[EventStore], seconds: float) -> Row:
    print(f"{name} ...", flush=True)
    alone = [await _appends(stores, width, seconds) for width in WIDTHS]
    return Row(name, alone, await _units(stores[0], seconds))


async def _appends(stores: Sequence[EventStore], width: int, seconds: float) -> float:
    names = [f"{width}-{number}" for number in range(width)]
    await asyncio.gather(*(stores[0].append(Unit([_begin(name)])) for name in names))
    began = time.perf_counter()

    async def append(store: EventStore, name: str) -> int:
        for version in itertools.count():
            if time.perf_counter() - began > seconds:
                return version
            await store.append(Unit([_more(name, version)]))
        raise AssertionError("counting does not end")

    counts = await asyncio.gather(
        *(append(store, name) for store, name in zip(itertools.cycle(stores), names, strict=False))
    )
    return sum(counts) / (time.perf_counter() - began)


async def _units(store: EventStore, seconds: float) -> float:
    names = [f"unit-{number}" for number in range(100)]
    await store.append(Unit([_begin(name) for name in names]))
    began = time.perf_counter()
    version = 0
    while time.perf_counter() - began < seconds:
        await store.append(Unit([_more(name, version) for name in names]))
        version += 1
    return version * len(names) / (time.perf_counter() - began)


def _begin(name: str) -> Append:
    return Append(name, NO_STREAM, 1, [NewEvent("text_appended", PAYLOAD)], new=NEW)


def _more(name: str, version: int) -> Append:
    return Append(name, version, 1, [NewEvent("text_appended", PAYLOAD)])


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, in rows a second."""
    lines = [
        "| rows/s | " + " | ".join(f"{width} at once" for width in WIDTHS) + " | units of 100 |",
        "|---" * (len(WIDTHS) + 2) + "|",
    ]
    for row in rows:
        figures = (f"{figure:,.0f}" for figure in (*row.alone, row.hundreds))
        lines.append(f"| {row.name} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
