"""What a delta costs on disk: while its response runs, once it is sealed, and round after round.

`python -m bench.storage [--responses 200] [--rounds 6] [--per-commit 4]`; Postgres comes from the development
dependencies.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import asyncpg
import orjson

from bench.results import Results, add_option
from eventstore.events import ERASED, NO_STREAM, Append, Document, Head, NewEvent, NewStream, Unit
from eventstore.ports import EventStore
from eventstore.sealing import seal
from eventstore.sql.postgres import PostgresEventStore
from eventstore.sql.sqlite import SqliteEventStore
from eventstore.sql.sqlite_connection import DATABASE
from runtime.response.items import new_response_id
from tests.local_cluster import LocalCluster
from tests.postgres_server import PostgresServer
from tests.unit.actors.test_supervisor import create, read

DELTAS: Final = 100
AT_ONCE: Final = 16
"""Responses that grow side by side, as in the other benches."""
PER_RECORD: Final = (1, 4, 20)
"""Deltas of one commit: of a paced stream one, of one that is flat out what arrives while another commits."""

_TABLES_SIZE: Final = (
    "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
    " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
)
"""With their indexes, but without what Postgres keeps of them for itself."""

Size = Callable[[], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Row:
    """What a store needed, in bytes a delta, and what sealing took."""

    running: float
    ended: float
    """With the documents that are kept from then on."""
    sealed: float
    seal_us: float


@dataclass(frozen=True, slots=True)
class Model:
    """A response as it is recorded: its deltas, what comes before and behind them, and its documents."""

    before: Sequence[NewEvent]
    said: Sequence[str]
    after: Sequence[NewEvent]
    documents: Sequence[Document]
    new: NewStream


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.storage", description=__doc__)
    parser.add_argument("--responses", type=int, default=200, help="of a measurement (default: 200)")
    parser.add_argument("--rounds", type=int, default=6, help="of create, seal and erase (default: 6)")
    parser.add_argument("--per-commit", type=int, action="append", help="deltas of one (default: 1, 4, 20)")
    add_option(parser)
    options = parser.parse_args()
    results = Results("storage", options.json)
    per_commit = options.per_commit or PER_RECORD
    # Rows that are gone count for as long as anybody may see them, and so would those that it looks at.
    database = PostgresServer(autovacuum="off")
    try:
        database.start()
        asyncio.run(_measure(results, database, options.responses, options.rounds, per_commit))
    finally:
        database.remove()


async def _measure(
    results: Results, database: PostgresServer, responses: int, rounds: int, per_commit: Sequence[int]
) -> None:
    model = await _model()
    print("| bytes a delta | while running | ended | sealed | sealing, us a delta |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="rsb-") as folder:
        for per_record in per_commit:
            for name in ("SQLite", "Postgres"):
                place = f"{name}_{per_record}".lower()
                store, size = await _open(name, Path(folder) / place, database, place, whole=True)
                row = await _row(store, size, model, responses, per_record)
                print(f"| {name}, {per_record} in a commit | {row.running:.0f} | {row.ended:.0f} |"
                      f" {row.sealed:.1f} | {row.seal_us:.0f} |", flush=True)  # fmt: skip
                results.add(store=name, per_commit=per_record, **asdict(row))
                await store.aclose()
        for name in ("SQLite", "Postgres") if rounds else ():
            place = f"{name}_loop".lower()
            store, size = await _open(name, Path(folder) / place, database, place, whole=False)
            heads: list[Head] = []
            sizes: list[int] = []
            for _ in range(rounds):
                heads = await _round(store, model, responses, heads)
                sizes.append(await size())
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
        return int(await connection.fetchval(_TABLES_SIZE))
    finally:
        await connection.close()


async def _model() -> Model:
    """As a cluster records a response of the simulated model."""
    async with LocalCluster() as cluster:
        command = create(f"simulated?deltas={DELTAS}")
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
            [delta for number in at for delta in orjson.loads(events[number].data)["d"]],
            events[at[-1] + 1 :],
            [Document("", kind, data) for kind, data in stored.items()],
            NewStream(head.category, head.tenant, head.state, attributes=head.attributes),
        )


async def _row(store: EventStore, size: Size, model: Model, responses: int, per_record: int) -> Row:
    empty = await size()
    heads = await _answer(store, model, responses, per_record)
    whole = await size()
    began = time.perf_counter()
    await seal(store, heads, "the bench", "to measure it")
    took = time.perf_counter() - began
    packed = await size()
    await _answer(store, model, responses, per_record, ends=False)
    deltas = responses * DELTAS
    running, ended, sealed = (
        room / deltas for room in (await size() - packed, whole - empty, packed - empty)
    )
    return Row(running, ended, sealed, took / deltas * 1e6)


async def _round(store: EventStore, model: Model, responses: int, old: Sequence[Head]) -> list[Head]:
    """Create, seal, and erase what a round before left: as many responses as one retention keeps."""
    heads = await _answer(store, model, responses, PER_RECORD[0])
    await seal(store, heads, "the bench", "to measure it")
    for head in old:
        tombstone = [NewEvent(ERASED, b'{"by":"the bench"}')]
        erasure = Append(head.stream, head.version, head.epoch + 1, tombstone, erase=True)
        await store.append(Unit([erasure]))
    return heads


async def _answer(
    store: EventStore, model: Model, responses: int, per_record: int, *, ends: bool = True
) -> list[Head]:
    """Responses of `DELTAS` deltas each, some of them side by side; they go on unless they end."""
    heads: list[Head] = []
    while len(heads) < responses:
        names = [new_response_id(os.urandom(16)) for _ in range(min(AT_ONCE, responses - len(heads)))]
        await asyncio.gather(*(_respond(store, model, name, per_record, ends=ends) for name in names))
        heads += [head for name in names if (head := await store.head(name)) is not None]
    return heads


async def _respond(store: EventStore, model: Model, name: str, per_record: int, *, ends: bool) -> None:
    commits = [model.before] + [
        [NewEvent("text_appended", orjson.dumps({"d": model.said[at : at + per_record]}))]
        for at in range(0, DELTAS, per_record)
    ]
    version = NO_STREAM
    for events in commits:
        new = model.new if version == NO_STREAM else None
        await store.append(Unit([Append(name, version, 1, events, new=new)]))
        version += len(events)
    if ends:
        documents = [Document(name, each.kind, each.data) for each in model.documents]
        await store.append(Unit([Append(name, version, 1, model.after)], documents=documents))


if __name__ == "__main__":
    main()
