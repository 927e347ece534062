"""The server restarts, falls over and loses connections under load: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import asyncpg
import pytest

from eventstore.errors import OutcomeUnknown, StoreUnavailable, WrongExpectedVersion
from eventstore.events import NewStream
from eventstore.sql.postgres import PostgresEventStore
from eventstore.unit import place_of
from eventstore.verify import verify
from tests.contract.store_contract import create, more, records, said_in, unit
from tests.patience import PATIENCE_S
from tests.postgres_server import PostgresServer, eventually

WRITERS = 8


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that may be ended."""
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture
def url(own_server: PostgresServer) -> Iterator[str]:
    yield own_server.make("log")
    own_server.drop("log")


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresEventStore]:
    store = PostgresEventStore(url)
    yield store
    await store.aclose()


@dataclass
class Writer:
    """Appends to one stream as an actor's journal does: where it does not know, it looks."""

    store: PostgresEventStore
    name: str
    acknowledged: list[bytes] = field(default_factory=list)
    told: int = 0
    """How often it was told that the store is away, or that it is unknown what became of an append."""
    stopped: bool = False

    async def run(self) -> None:
        while not self.stopped:
            said = b"%s %d" % (self.name.encode(), len(self.acknowledged))
            await self._append(said)
            self.acknowledged.append(said)

    async def _append(self, said: bytes) -> None:
        last = len(self.acknowledged) - 1
        append = more(self.name, last, said) if last >= 0 else create(self.name, said)
        unsure = False
        while True:
            try:
                found = await records(self.store, self.name, last) if unsure else []
                if any(place_of(append, record) for record in found):
                    return
                await self.store.append(unit(append))
                return
            except OutcomeUnknown:
                self.told += 1
                unsure = True
            except StoreUnavailable:
                self.told += 1
            except WrongExpectedVersion:
                # It may have been committed between the look and the second try, and only then.
                assert unsure
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["restarted", "fallen over"])
async def test_a_restart_under_load_loses_and_doubles_nothing(
    own_server: PostgresServer, store: PostgresEventStore, number: signal.Signals
) -> None:
    """Meanwhile the store says that it is away; afterwards it goes on by itself."""
    writers = [Writer(store, f"s{index}") for index in range(WRITERS)]
    running = asyncio.gather(*(writer.run() for writer in writers))
    for _ in range(2):
        goals = [len(writer.acknowledged) + 20 for writer in writers]

        async def further(goals: list[int] = goals) -> bool:
            return all(len(one.acknowledged) >= goal for one, goal in zip(writers, goals, strict=True))

        await eventually(further)
        told = sum(writer.told for writer in writers)
        own_server.stop(number)

        async def noticed(told: int = told) -> bool:
            return sum(writer.told for writer in writers) > told

        await eventually(noticed)
        own_server.start()
    for writer in writers:
        writer.stopped = True
    await asyncio.wait_for(running, PATIENCE_S)
    for writer in writers:
        assert await said_in(store, writer.name) == writer.acknowledged
    assert [report async for report in verify(store) if getattr(report, "finding", report)] == []


async def test_hosts_do_not_die_of_a_server_that_was_away(
    own_server: PostgresServer, store: PostgresEventStore
) -> None:
    """Nobody could renew meanwhile; whoever does not renew afterwards is dead after a whole new term."""
    await store.append(unit(create("a", new=NewStream("c", "p", "s", owner="h1"))))
    await store.renew("h1", 1.0)
    own_server.stop()
    with pytest.raises(StoreUnavailable):
        await store.expired()
    await asyncio.sleep(1.0)  # The whole of the term, while nobody could renew.
    own_server.start()
    assert await store.expired() == []
    await eventually(store.expired)


async def test_hosts_do_not_die_of_a_server_that_stood_still(
    own_server: PostgresServer, store: PostgresEventStore
) -> None:
    """All connections held, so nothing failed; what was asked meanwhile is answered when it goes on."""
    await store.append(unit(create("a", new=NewStream("c", "p", "s", owner="h1"))))
    await store.renew("h1", 1.0)
    assert await store.expired() == []
    with own_server.halted():
        asked = asyncio.create_task(store.expired())
        await asyncio.sleep(2.0)  # More than the whole of the term, while nobody could renew.
    assert await asked == []
    assert await store.expired() == []
    await eventually(store.expired)


class Proxy:
    """Stands between a store and its server, and can keep an answer to itself."""

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self.silent = False
        self._listening: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """The URL by which the server is reached through it."""
        self._listening = await asyncio.start_server(self._session, "127.0.0.1", 0)
        port = self._listening.sockets[0].getsockname()[1]
        return self._server._replace(netloc=f"postgres@127.0.0.1:{port}").geturl()

    async def stop(self) -> None:
        assert self._listening is not None
        self._listening.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        up_reader, up_writer = await asyncio.open_connection(self._server.hostname, self._server.port)
        asking = asyncio.create_task(self._pass_on(reader, up_writer))
        with suppress(asyncio.CancelledError, OSError):
            while data := await up_reader.read(65536):
                if self.silent:
                    # The server has done what it was asked for, and nobody will hear of it.
                    self.silent = False
                    break
                writer.write(data)
                await writer.drain()
        asking.cancel()
        writer.close()
        up_writer.close()
        self._sessions.discard(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@pytest.fixture
async def proxy(url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(url)
    yield proxy
    await proxy.stop()


async def test_a_connection_lost_during_a_commit_leaves_its_outcome_unknown(
    store: PostgresEventStore, proxy: Proxy
) -> None:
    """The commit happened and its answer got lost: it is not repeated, and not said to have failed."""
    through = PostgresEventStore(await proxy.start())
    await through.append(unit(create("a", b"0")))
    proxy.silent = True
    with pytest.raises(OutcomeUnknown):
        await through.append(unit(more("a", 0, b"1")))

    async def landed() -> bool:
        return len(await said_in(store, "a")) == 2

    await eventually(landed)
    await through.append(unit(more("a", 1, b"2")))
    assert await said_in(store, "a") == [b"0", b"1", b"2"]
    await through.aclose()


async def test_a_take_of_which_nobody_heard_is_recognised(store: PostgresEventStore, proxy: Proxy) -> None:
    through = PostgresEventStore(await proxy.start())
    await store.append(unit(create("a"), create("b")))
    await through.take("b", epoch=1, owner="h1")
    proxy.silent = True
    head = await through.take("a", epoch=1, owner="h1")
    assert (head.epoch, head.owner) == (2, "h1")
    await through.aclose()


async def test_a_session_that_is_ended_during_a_commit_leaves_nothing(
    store: PostgresEventStore, url: str
) -> None:
    """Its outcome is unknown, and so are its neighbours' in the same call; the next call succeeds."""
    admin = await asyncpg.connect(url)
    await store.append(unit(create("a")))
    await admin.execute(
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60);"
        " RETURN NULL; END $$; CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON records"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slowly()"
    )
    writing = [asyncio.create_task(store.append(unit(each))) for each in (more("a", 0), create("b"))]
    ending = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rayspond'"
        " AND datname = current_database() AND wait_event = 'PgSleep'"
    )
    await eventually(lambda: admin.fetch(ending))
    outcomes = await asyncio.gather(*writing, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, OutcomeUnknown]
    await admin.execute("DROP TRIGGER slowly ON records")
    assert await store.head("b") is None
    [recorded] = await store.append(unit(more("a", 0)))
    assert recorded.position == 2
    await admin.close()


async def test_who_waits_too_long_for_a_lock_is_told_and_has_written_nothing(
    store: PostgresEventStore, url: str
) -> None:
    """Somebody at a console holds a stream: short statements end by themselves."""
    await store.append(unit(create("a")))
    admin = await asyncpg.connect(url)
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("SELECT * FROM streams FOR UPDATE")
    with pytest.raises(StoreUnavailable) as refused:
        await store.take("a", epoch=1, owner="h1")
    assert not isinstance(refused.value, OutcomeUnknown)
    await transaction.rollback()
    await admin.close()
    assert (await store.take("a", epoch=1, owner="h1")).epoch == 2
