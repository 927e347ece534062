"""What a delta costs on disk: while its response runs, once it is sealed, and round after round.

`python -m bench.storage [--responses 200] [--rounds 6]`; Postgres comes from the development dependencies.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
import orjson

from eventstore.events import ERASED, NO_STREAM, Append, Document, Head, NewEvent, NewStream, Unit
from eventstore.ports import EventStore
from eventstore.sealing import seal
from eventstore.sql.postgres import PostgresEventStore
from eventstore.sql.sqlite import SqliteEventStore
from eventstore.sql.sqlite_connection import DATABASE
from tests.fakes.script import words
from tests.local_cluster import LocalCluster
from tests.postgres_server import PostgresServer
from tests.unit.actors.test_supervisor import create, read

DELTAS: Final = 100
AT_ONCE: Final = 16
"""Responses that grow side by side, as in the other benches."""
PER_RECORD: Final = (1, 4, 20)
"""Deltas of one commit: of a paced stream one, of one that is flat out what arrives while another commits."""

Size = Callable[[], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Row:
    """What a store needed, in bytes a delta, and what sealing took."""

    running: float
    sealed: float
    beside: float
    """Of both: what does not grow with the deltas, heads and snapshots."""
    seal_us: float


@dataclass(frozen=True, slots=True)
class Model:
    """A response as it is recorded: what comes before its deltas, what comes behind, and its documents."""

    before: Sequence[NewEvent]
    after: Sequence[NewEvent]
    documents: Sequence[Document]
    new: NewStream


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.storage", description=__doc__)
    parser.add_argument("--responses", type=int, default=200, help="of a measurement (default: 200)")
    parser.add_argument("--rounds", type=int, default=6, help="of create, seal and erase (default: 6)")
    options = parser.parse_args()
    database = PostgresServer()
    try:
        database.start()
        asyncio.run(_measure(database, options.responses, options.rounds))
    finally:
        database.remove()


async def _measure(database: PostgresServer, responses: int, rounds: int) -> None:
    model = await _model()
    print("| bytes a delta | while running | sealed | of both: heads, documents | sealing, us a delta |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="rsb-") as folder:
        for per_record in PER_RECORD:
            for name in ("SQLite", "Postgres"):
                place = f"{name}_{per_record}".lower()
                store, size = await _open(name, Path(folder) / place, database, place, whole=True)
                row = await _row(store, size, model, responses, per_record)
                print(f"| {name}, {per_record} in a commit | {row.running:.0f} | {row.sealed:.1f} |"
                      f" {row.beside:.0f} | {row.seal_us:.0f} |", flush=True)  # fmt: skip
                await store.aclose()
        for name in ("SQLite", "Postgres"):
            place = f"{name}_loop".lower()
            store, size = await _open(name, Path(folder) / place, database, place, whole=False)
            sizes = [await _round(store, size, model, responses, number) for number in range(rounds)]
            print(f"{name}, KiB after each round:", *(f"{found / 1024:,.0f}" for found in sizes))
            await store.aclose()


async def _open(
    name: str, folder: Path, database: PostgresServer, place: str, *, whole: bool
) -> tuple[SqliteEventStore | PostgresEventStore, Size]:
    if name == "SQLite":
        await asyncio.to_thread(folder.mkdir)
        return await SqliteEventStore.open(folder, may_own=True), lambda: _sqlite_size(folder / DATABASE)
    url = database.make(place)
    return PostgresEventStore(url), lambda: _postgres_size(url, whole=whole)


async def _sqlite_size(path: Path) -> int:
    """Pages in use: those that are free are used again."""
    with closing(sqlite3.connect(path)) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)


async def _postgres_size(url: str, *, whole: bool) -> int:
    connection = await asyncpg.connect(url)
    try:
        # What a table of live rows takes; what autovacuum frees of it is used again.
        await connection.execute("VACUUM FULL" if whole else "VACUUM")
        return int(await connection.fetchval("SELECT pg_database_size(current_database())"))
    finally:
        await connection.close()


async def _model() -> Model:
    """As a cluster records a response of the simulated model."""
    async with LocalCluster() as cluster:
        command = create("simulated?deltas=2")
        await cluster.client.create(command)
        await read(cluster, command.id)
        events = [
            NewEvent(type_, data)
            async for record in cluster.store.read(command.id)
            for type_, data in zip(record.types, record.payload or (), strict=True)
        ]
        head = await cluster.store.head(command.id)
        assert head is not None
        stored = cluster.store._streams[command.id].documents
        at = [number for number, event in enumerate(events) if event.type == "text_appended"]
        return Model(
            events[: at[0]],
            events[at[-1] + 1 :],
            [Document("", kind, data) for kind, data in stored.items()],
            NewStream(head.category, head.tenant, head.state, attributes=head.attributes),
        )


async def _row(store: EventStore, size: Size, model: Model, responses: int, per_record: int) -> Row:
    empty = await size()
    heads = await _grow(store, model, responses, per_record, "a")
    whole = await size()
    beside = sum(len(document.data) for document in model.documents)
    began = time.perf_counter()
    await seal(store, heads, "the bench", "to measure it")
    took = time.perf_counter() - began
    deltas = responses * DELTAS
    after = await size()
    return Row((whole - empty) / deltas, (after - empty) / deltas, beside / DELTAS, took / deltas * 1e6)


async def _round(store: EventStore, size: Size, model: Model, responses: int, number: int) -> int:
    """Create, seal, and erase what a round before left: as many responses as one retention keeps."""
    heads = await _grow(store, model, responses, PER_RECORD[0], f"round{number}")
    await seal(store, heads, "the bench", "to measure it")
    old = [f"round{number - 1}-{each}" for each in range(responses)] if number else []
    for name in old:
        head = await store.head(name)
        assert head is not None
        tombstone = [NewEvent(ERASED, b'{"by":"the bench"}')]
        await store.append(Unit([Append(name, head.version, head.epoch, tombstone, erase=True)]))
    return await size()


async def _grow(store: EventStore, model: Model, responses: int, per_record: int, prefix: str) -> list[Head]:
    """Responses of `DELTAS` deltas each, some of them side by side."""
    names = [f"{prefix}-{each}" for each in range(responses)]
    for at in range(0, responses, AT_ONCE):
        await asyncio.gather(*(_respond(store, model, name, per_record) for name in names[at : at + AT_ONCE]))
    return [head for name in names if (head := await store.head(name)) is not None]


async def _respond(store: EventStore, model: Model, name: str, per_record: int) -> None:
    said = words(DELTAS)
    commits = [model.before] + [
        [NewEvent("text_appended", orjson.dumps({"d": said[at : at + per_record]}))]
        for at in range(0, DELTAS, per_record)
    ]
    version = NO_STREAM
    for events in commits:
        new = model.new if version == NO_STREAM else None
        await store.append(Unit([Append(name, version, 1, events, new=new)]))
        version += len(events)
    documents = [Document(name, each.kind, each.data) for each in model.documents]
    await store.append(Unit([Append(name, version, 1, model.after)], documents=documents))


if __name__ == "__main__":
    main()
