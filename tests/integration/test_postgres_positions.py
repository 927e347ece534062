"""Many processes write, some of them slowly, and a reader goes by `> last`: it must miss nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import asyncpg
import pytest

from eventstore.sql.postgres import PostgresEventStore
from eventstore.verify import verify
from tests.contract.store_contract import create, more, unit

WRITERS: Final = 16
EACH: Final = 40
SLOW: Final = 0.1
"""Seconds between the last statement of a slow transaction and its commit."""

# Every fiftieth transaction that wrote to the table is slow to commit, whoever wrote it.
SLOWLY: Final = f"""
CREATE SEQUENCE turns;
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('turns') % 50 = 0 THEN PERFORM pg_sleep({SLOW}); END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON {{}} DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION slowly()"""

Write = Callable[[int, int], Awaitable[object]]
Read = Callable[[int], Awaitable[Sequence[int]]]


@pytest.fixture
async def admin(postgres: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres)
    yield connection
    await connection.close()


async def seen_by_a_reader(write: Write, read_after: Read) -> list[int]:
    """What a reader sees that asks for what comes behind the last it saw, while sixteen write."""
    writing = asyncio.gather(*(_write_all(write, writer) for writer in range(WRITERS)))
    seen: list[int] = []
    while True:
        done = writing.done()
        page = await read_after(seen[-1] if seen else 0)
        seen += page
        if done and not page:
            await writing
            return seen


async def _write_all(write: Write, writer: int) -> None:
    for turn in range(EACH):
        await write(writer, turn)


async def test_who_follows_by_sequence_and_commit_order_loses_events(
    postgres: str, admin: asyncpg.Connection
) -> None:
    """The naive log: were nothing lost here, the next test would prove nothing."""
    await admin.execute("CREATE TABLE naive (position bigserial PRIMARY KEY)")
    await admin.execute(SLOWLY.format("naive"))
    sessions = [await asyncpg.connect(postgres) for _ in range(WRITERS)]

    async def read_after(last: int) -> list[int]:
        rows = await admin.fetch("SELECT position FROM naive WHERE position > $1 ORDER BY 1 LIMIT 100", last)
        return [row[0] for row in rows]

    seen = await seen_by_a_reader(
        lambda writer, _: sessions[writer].execute("INSERT INTO naive DEFAULT VALUES"), read_after
    )
    assert len(set(seen)) < WRITERS * EACH
    await asyncio.gather(*(session.close() for session in sessions))


async def test_who_follows_the_log_misses_nothing(postgres: str, admin: asyncpg.Connection) -> None:
    """Sixteen stores, each with a connection of its own, as sixteen hosts would have."""
    await admin.execute(SLOWLY.format("records"))
    stores = [PostgresEventStore(postgres) for _ in range(WRITERS)]
    reader = PostgresEventStore(postgres)

    async def write(writer: int, turn: int) -> None:
        name = f"s{writer}"
        await stores[writer].append(unit(more(name, turn - 1) if turn else create(name)))

    async def read_after(last: int) -> list[int]:
        return [record.position for record in await reader.read_all(last, 100)]

    assert await seen_by_a_reader(write, read_after) == list(range(1, WRITERS * EACH + 1))
    assert [report async for report in verify(reader) if getattr(report, "finding", report)] == []
    await asyncio.gather(*(store.aclose() for store in [*stores, reader]))


async def test_a_writer_that_stands_still_in_its_transaction_stops_the_others_and_loses_nothing(
    postgres: str, admin: asyncpg.Connection
) -> None:
    """Somebody at a console who took the log's lock: the others wait, and then go on behind him."""
    store = PostgresEventStore(postgres)
    await store.append(unit(create("a")))
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("SELECT pg_advisory_xact_lock(8242002329779269220)")
    waiting = asyncio.create_task(store.append(unit(more("a", 0))))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    assert [record.position for record in await store.read_all(0)] == [1]
    await transaction.rollback()
    [recorded] = await waiting
    assert recorded.position == 2
    await store.aclose()
