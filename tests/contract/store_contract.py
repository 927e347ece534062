"""What a store's contract is tested with: the adapters, a clock in the test's hand, short words for units.

An adapter joins the suites, these and the state machine of tests/property, by one line in `STORES`.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from eventstore.events import (
    ERASED,
    NO_STREAM,
    Append,
    Claim,
    Document,
    HeadChange,
    NewEvent,
    NewStream,
    Record,
    Unit,
)
from eventstore.memory import MemoryEventStore
from eventstore.ports import EventStore, LogReader
from eventstore.sql.migrate import migrate_sqlite
from eventstore.sql.postgres import PostgresEventStore
from eventstore.sql.sqlite import SqliteEventStore
from eventstore.sql.sqlite_connection import DATABASE
from tests.postgres_server import server


@dataclass
class Clock:
    """Time that passes when the test says so: the wall's, which may be set back, and the leases'."""

    ms: int = 1_795_353_600_000
    seconds: float = 100.0

    def now(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)
        self.seconds += seconds


@dataclass(frozen=True)
class StoreAdapter:
    """How to open a store in a folder of the test's own."""

    open: Callable[[Path, Clock], Awaitable[EventStore]]
    survives: bool = True
    """Whether what was recorded is there again when the folder is opened again."""


async def open_memory(folder: Path, clock: Clock) -> EventStore:
    return MemoryEventStore(now=clock.now, monotonic=clock.monotonic)


@cache
def _empty_database() -> bytes:
    """What the migrations make of nothing: hundreds of tests need it, and one run of them is enough."""
    with tempfile.TemporaryDirectory() as folder:
        migrate_sqlite(Path(folder) / DATABASE)
        return (Path(folder) / DATABASE).read_bytes()


def _prepare(folder: Path) -> None:
    if not (folder / DATABASE).exists():
        (folder / DATABASE).write_bytes(_empty_database())


async def open_sqlite(folder: Path, clock: Clock) -> EventStore:
    _prepare(folder)
    return await SqliteEventStore.open(folder, may_own=True, now=clock.now, monotonic=clock.monotonic)


class SqliteClient(SqliteEventStore):
    """A store that writes through another one's socket, and takes that owner along when it goes."""

    owner: SqliteEventStore

    @classmethod
    async def open_both(cls, folder: Path, clock: Clock) -> EventStore:
        _prepare(folder)
        owner = await SqliteEventStore.open(folder, may_own=True, now=clock.now, monotonic=clock.monotonic)
        client = cls(folder, may_own=False, now=clock.now)
        client.owner = owner
        return client

    async def aclose(self) -> None:
        await super().aclose()
        await self.owner.aclose()


async def open_postgres(folder: Path, clock: Clock) -> EventStore:
    """Each folder stands for a database; what lies in it is the database's name."""
    note = folder / "postgres.url"
    if not note.exists():
        note.write_text(server().make(f"log_{secrets.token_hex(8)}"))
    store = PostgresEventStore(note.read_text(), now=clock.now, monotonic=clock.monotonic)
    await store.incarnation()
    return store


STORES: dict[str, StoreAdapter] = {
    "memory": StoreAdapter(open_memory, survives=False),
    "sqlite": StoreAdapter(open_sqlite),
    "sqlite-by-socket": StoreAdapter(SqliteClient.open_both),
    "postgres": StoreAdapter(open_postgres),
}


@asynccontextmanager
async def opened(adapter: StoreAdapter, folder: Path, clock: Clock) -> AsyncGenerator[EventStore]:
    store = await adapter.open(folder, clock)
    try:
        yield store
    finally:
        await store.aclose()


NEW = NewStream(category="response", tenant="p1", state="queued")


def said(*data: bytes) -> list[NewEvent]:
    return [NewEvent("said", item) for item in data]


def create(stream: str, *data: bytes, new: NewStream = NEW, epoch: int = 1) -> Append:
    return Append(stream, NO_STREAM, epoch, said(*data or (b"hello",)), new=new)


def more(
    stream: str, expected: int, *data: bytes, epoch: int = 1, change: HeadChange | None = None
) -> Append:
    return Append(stream, expected, epoch, said(*data or (b"more",)), change=change)


def erase(stream: str, expected: int, epoch: int = 1) -> Append:
    return Append(stream, expected, epoch, [NewEvent(ERASED, b'{"why":"asked"}')], erase=True)


def unit(*appends: Append, claims: tuple[Claim, ...] = (), documents: tuple[Document, ...] = ()) -> Unit:
    return Unit(appends, claims, documents)


async def records(store: LogReader, stream: str, after: int = -1) -> list[Record]:
    return [record async for record in store.read(stream, after)]


async def said_in(store: LogReader, stream: str) -> list[bytes | None]:
    """Every event's bytes; None for each that was erased."""
    found: list[bytes | None] = []
    for record in await records(store, stream):
        found.extend(record.payload if record.payload is not None else [None] * record.count)
    return found


async def whole_log(store: LogReader, page: int = 500) -> list[Record]:
    found: list[Record] = []
    while part := await store.read_all(found[-1].position if found else 0, page):
        assert len(part) <= page
        found.extend(part)
    return found
