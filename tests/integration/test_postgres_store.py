"""What is particular to Postgres: connections, rivals, leases, unsafe settings, secrets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Final

import asyncpg
import pytest

from eventstore.errors import (
    ClaimTaken,
    EventStoreError,
    Fenced,
    LeaseLost,
    StoreUnavailable,
    UnsafeStore,
    WrongExpectedVersion,
)
from eventstore.events import Claim, Document, NewStream
from eventstore.sql.postgres import PostgresEventStore
from eventstore.sql.postgres_connection import POOL_MAX
from eventstore.sql.postgres_migrate import look, migrate_postgres
from eventstore.sql.postgres_reader import PostgresLogReader
from eventstore.verify import verify
from tests.contract.store_contract import create, more, said_in, unit
from tests.postgres_server import eventually, server

PAGES: Final = 300
"""Records of a stream that is longer than a page."""


@pytest.fixture
async def store(postgres: str) -> AsyncIterator[PostgresEventStore]:
    store = PostgresEventStore(postgres)
    yield store
    await store.aclose()


@pytest.fixture
async def rival(postgres: str) -> AsyncIterator[PostgresEventStore]:
    """Another process's store."""
    store = PostgresEventStore(postgres)
    yield store
    await store.aclose()


@pytest.fixture
async def admin(postgres: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres)
    yield connection
    await connection.close()


async def assert_sound(store: PostgresLogReader) -> None:
    reports = [report async for report in verify(store)]
    assert reports
    assert [report for report in reports if getattr(report, "finding", report) is not None] == []


async def test_no_connection_is_held_while_a_page_is_looked_at(
    store: PostgresEventStore, admin: asyncpg.Connection
) -> None:
    """More readers in the middle of a stream than there are connections; nobody else waits for them."""
    await store.append(unit(create("a")))
    await asyncio.gather(*(store.append(unit(create(f"s{n}"))) for n in range(20)))
    for version in range(PAGES):
        await store.append(unit(more("a", version)))
    readers = [store.read("a") for _ in range(5 * POOL_MAX)]
    for reader in readers:
        await anext(reader)
    assert await store.head("a") is not None
    open_transactions = await admin.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rayspond'"
        " AND datname = current_database() AND (xact_start IS NOT NULL OR state <> 'idle')"
    )
    assert open_transactions == 0
    assert [len([record async for record in reader]) for reader in readers] == [PAGES] * len(readers)


async def test_a_process_opens_few_connections(store: PostgresEventStore, admin: asyncpg.Connection) -> None:
    await store.append(unit(create("a")))
    await asyncio.gather(*(store.head("a") for _ in range(200)))
    await asyncio.to_thread(store.renew_lease_blocking, "h", 3.0)
    count = await admin.fetchval(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'rayspond' AND datname = current_database()"
    )
    assert count <= POOL_MAX + 2


async def test_cancelled_callers_leave_everything_usable(store: PostgresEventStore) -> None:
    """Readers give their connections back; the writer goes on, and those who stay get what is theirs."""
    await store.append(unit(create("a")))
    readers = [asyncio.create_task(store.head("a")) for _ in range(100)]
    writers = [asyncio.create_task(store.append(unit(create(f"s{n}")))) for n in range(100)]
    for turn in range(20):
        await asyncio.sleep(0.001 if turn % 2 else 0)
        for task in (*readers[turn::20], *writers[turn::40]):
            task.cancel()
    outcomes = await asyncio.gather(*readers, *writers, return_exceptions=True)
    unharmed = [outcome for outcome in outcomes[100:] if not isinstance(outcome, asyncio.CancelledError)]
    assert unharmed
    assert [outcome for outcome in unharmed if isinstance(outcome, BaseException)] == []
    for _ in range(3 * POOL_MAX):
        assert await store.head("a") is not None
    await store.append(unit(create("after")))
    await assert_sound(store)


async def test_what_a_rival_did_is_noticed(store: PostgresEventStore, rival: PostgresEventStore) -> None:
    """The heads in memory are a guess that the database checks; the answer is about the stream as it is."""
    await store.append(unit(create("a")))
    await rival.append(unit(more("a", 0, b"theirs")))
    with pytest.raises(WrongExpectedVersion) as late:
        await store.append(unit(more("a", 0, b"ours")))
    assert late.value.actual == 1
    await store.append(unit(more("a", 1, b"ours")))
    await rival.take("a", epoch=1, owner="rival")
    with pytest.raises(Fenced) as fenced:
        await store.append(unit(more("a", 2)))
    assert fenced.value.actual == 2
    await store.append(unit(more("a", 2, epoch=2)))
    await rival.append(unit(more("a", 3, b"theirs", epoch=2)))
    # A refusal from memory would be a wrong one: the stream went on meanwhile, and this caller knows it.
    await store.append(unit(more("a", 4, b"ours", epoch=2)))
    assert await said_in(store, "a") == [b"hello", b"theirs", b"ours", b"more", b"theirs", b"ours"]
    await assert_sound(store)


async def test_rivals_at_once_never_harm_the_innocent(
    store: PostgresEventStore, rival: PostgresEventStore
) -> None:
    """Both begin the same streams, with the same claims, among streams of their own, many times over."""

    async def begin(who: PostgresEventStore, mark: str, turn: int) -> list[EventStoreError | None]:
        units = [
            unit(create(f"both-{turn}")),
            unit(create(f"{mark}-{turn}"), claims=(Claim("s", f"{mark}-{turn}", b"f", "x"),)),
            unit(create(f"{mark}-claims-{turn}"), claims=(Claim("s", f"{turn}", mark.encode(), mark),)),
            unit(
                create(f"{mark}-pair-{turn}"),
                create(f"pair-{turn}"),
                claims=(Claim("t", f"{mark}-{turn}", b"f", mark),),
                documents=(Document(f"{mark}-pair-{turn}", "k", b"x"),),
            ),
        ]
        outcomes = await asyncio.gather(*(who.append(each) for each in units), return_exceptions=True)
        return [outcome if isinstance(outcome, EventStoreError) else None for outcome in outcomes]

    for turn in range(25):
        ours, theirs = await asyncio.gather(begin(store, "ours", turn), begin(rival, "theirs", turn))
        assert ours[1] is theirs[1] is None
        for index, refusal in ((0, WrongExpectedVersion), (2, ClaimTaken), (3, WrongExpectedVersion)):
            lost = [each[index] for each in (ours, theirs) if each[index] is not None]
            assert [type(error) for error in lost] == [refusal]
        loser, winner = ("ours", "theirs") if ours[3] else ("theirs", "ours")
        assert await store.head(f"{loser}-pair-{turn}") is None
        assert await store.claim("t", f"{loser}-{turn}") is None
        assert await store.document(f"{winner}-pair-{turn}", "k") == b"x"
    positions = [record.position for record in await store.read_all(0)]
    assert positions == list(range(1, 25 * 6 + 1))
    await assert_sound(store)


async def test_expired_claims_do_not_stay(postgres: str, admin: asyncpg.Connection) -> None:
    now = 1_000_000
    store = PostgresEventStore(postgres, now=lambda: now)
    for n in range(20):
        await store.append(unit(create(f"a{n}"), claims=(Claim("s", f"{n}", b"", "a", now + 1000),)))
    now += 1000
    for n in range(2):
        await store.append(unit(create(f"b{n}"), claims=(Claim("t", f"{n}", b"", "b"),)))
    assert await admin.fetchval("SELECT count(*) FROM claims") == 2
    await store.aclose()


async def test_claims_that_expired_bring_nobody_into_a_ring(postgres: str, admin: asyncpg.Connection) -> None:
    """Two writers clear away what has expired, each at what the other one is about to claim."""
    now = 1_000_000
    ours, theirs = (PostgresEventStore(postgres, now=lambda: now) for _ in range(2))
    halves = [[f"{half}-{n:02}" for n in range(16)] for half in range(2)]

    def claims(keys: list[str], gate: str, stream: str) -> tuple[Claim, ...]:
        return tuple(Claim("s", key, b"", stream, now + 1000) for key in (gate, *keys))

    for half, keys in enumerate(halves):
        await ours.append(unit(create(f"a{half}"), claims=claims(keys, f"+gate-{half}", f"a{half}")))
    now += 1000
    async with admin.transaction():
        # Whoever claims comes as far as its gate, which sorts before all, and waits there.
        await admin.execute("SELECT FROM claims WHERE key LIKE '+gate-%' FOR UPDATE")
        units = [
            unit(create(f"b{half}"), claims=claims(halves[1 - half], f"+gate-{half}", f"b{half}"))
            for half in range(2)
        ]
        again = [
            asyncio.create_task(who.append(each)) for who, each in zip((ours, theirs), units, strict=True)
        ]

        async def both_wait() -> bool:
            await admin.execute("SELECT pg_stat_clear_snapshot()")
            waiting = await admin.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(waiting == 2)

        await eventually(both_wait)
    await asyncio.gather(*again)
    for half, keys in enumerate(halves):
        found = await ours.claim("s", keys[0])
        assert found is not None
        assert found.stream == f"b{1 - half}"
    for store in (ours, theirs):
        await store.aclose()


async def test_a_thread_renews_while_the_event_loop_is_blocked(store: PostgresEventStore) -> None:
    thread = threading.Thread(target=store.renew_lease_blocking, args=("host-1", 3.0))
    thread.start()
    thread.join(10)  # The event loop is blocked here.
    assert not thread.is_alive()
    await store.bury("host-1")
    with pytest.raises(LeaseLost):
        await asyncio.to_thread(store.renew_lease_blocking, "host-1", 3.0)


async def test_a_lease_runs_out_by_the_servers_clock(
    store: PostgresEventStore, rival: PostgresEventStore
) -> None:
    """Whoever looks for the first time waits a whole term; who is late may renew while nobody buried it."""
    await store.append(unit(create("a", new=NewStream("c", "p", "s", owner="h1"))))
    await store.renew("h1", 0.3)
    await eventually(rival.expired)
    assert await rival.expired() == ["h1"]
    await store.renew("h1", 60.0)
    assert await rival.expired() == []


@pytest.mark.parametrize(
    ("setting", "value"), [("fsync", "off"), ("full_page_writes", "off"), ("synchronous_commit", "local")]
)
async def test_a_server_that_would_lose_events_is_refused(
    postgres: str, admin: asyncpg.Connection, setting: str, value: str
) -> None:
    """By whoever writes and whoever reads, by the migration and the doctor: one clear line."""
    try:
        await admin.execute(f"ALTER SYSTEM SET {setting} = {value}")
        await admin.execute("SELECT pg_reload_conf()")

        async def took_effect() -> bool:
            fresh = await asyncpg.connect(postgres)
            try:
                return bool(await fresh.fetchval("SELECT current_setting($1)", setting) == value)
            finally:
                await fresh.close()

        await eventually(took_effect)
        store = PostgresEventStore(postgres)
        for refused in (
            store.append(unit(create("a"))),
            store.head("a"),
            store.renew("h", 3.0),
            migrate_postgres(postgres),
            look(postgres),
        ):
            with pytest.raises(UnsafeStore, match=f"Postgres' {setting} is '{value}' but must be 'on'"):
                await refused
        await store.aclose()
    finally:
        await admin.execute(f"ALTER SYSTEM RESET {setting}")
        await admin.execute("SELECT pg_reload_conf()")
    assert "holds a log of this version" in await look(postgres)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:sk-secret@127.0.0.1:1/log",
        "postgresql://me:sk-secret@127.0.0.1:{port}/none",
        "postgresql://nobody:sk-secret@127.0.0.1:{port}/postgres",
        "postgresql://me:sk-secret@127.0.0.1:port/log",
        "postgresql://me:sk/sk-secret@127.0.0.1:{port}/log",
        "postgresql://me:1/sk-secret@127.0.0.1:{port}/log",
        "postgresql://me:sk@sk-secret@127.0.0.1:{port}/log",
        "postgresql://127.0.0.1:{port}/log?password=sk-secret&user=me",
        "postgresql://127.0.0.1:{port}/log?password=sk-secret&sslmode=no-such",
    ],
)
async def test_no_error_shows_a_password(url: str) -> None:
    store = PostgresEventStore(url.format(port=server().port))
    for refused in (store.head("a"), store.append(unit(create("a"))), look(url.format(port=server().port))):
        with pytest.raises(StoreUnavailable) as error:
            await refused
        assert "secret" not in str(error.value)
    assert "secret" not in repr(store)
    await store.aclose()
