"""The SQLite writer: group commits, erasure down to the bytes, and what it does when the disk fails."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from eventstore.errors import (
    ClaimTaken,
    LeaseLost,
    OutcomeUnknown,
    StoreUnavailable,
    StreamNotFound,
    WrongExpectedVersion,
)
from eventstore.events import ERASED, NO_STREAM, Append, Claim, Document, NewEvent, NewStream, Recorded, Unit
from eventstore.sql import remote_writer, sqlite_commit
from eventstore.sql.migrate import migrate_sqlite
from eventstore.sql.reader import SqliteLogReader
from eventstore.sql.remote_writer import OwnerHangs, RemoteWriter
from eventstore.sql.requests import Answer, Expired, Outcome, Renew, Request
from eventstore.sql.room import Room
from eventstore.sql.sqlite import SqliteEventStore
from eventstore.sql.sqlite_commit import SqliteCommitter
from eventstore.sql.sqlite_writer import SqliteWriter
from eventstore.verify import Finding, verify
from tests.patience import PATIENCE_S

NEW = NewStream("response", "p1", "running")


def created(stream: str, data: bytes = b"hello", claims: tuple[Claim, ...] = ()) -> Unit:
    return Unit([Append(stream, NO_STREAM, 1, [NewEvent("said", data)], new=NEW)], claims)


def said(stream: str, expected: int, data: bytes = b"more") -> Unit:
    return Unit([Append(stream, expected, 1, [NewEvent("said", data)])])


def erased(stream: str, expected: int) -> Unit:
    return Unit([Append(stream, expected, 1, [NewEvent(ERASED, b"asked")], erase=True)])


@pytest.fixture
async def store(tmp_path: Path) -> AsyncGenerator[SqliteEventStore]:
    store = await SqliteEventStore.open(tmp_path, may_own=True)
    yield store
    await store.aclose()


@pytest.fixture
def committer(tmp_path: Path) -> SqliteCommitter:
    migrate_sqlite(tmp_path / "log.db")
    return SqliteCommitter(tmp_path / "log.db")


async def assert_sound(store: SqliteLogReader) -> None:
    reports = [report async for report in verify(store)]
    assert reports
    assert not [r for r in reports if isinstance(r, Finding) or r.finding is not None]


def test_guilty_units_harm_none_of_their_group(committer: SqliteCommitter) -> None:
    """One transaction, ten units: six are refused, each for its own reason, the others lie without a gap."""
    claim = Claim("s", "k", b"f", "a")
    outcomes = committer.commit(
        [
            created("a", claims=(claim,)),
            created("a"),
            said("a", 5),
            created("b", claims=(claim,)),
            said("nowhere", 0),
            Unit([*created("c").appends, *said("a", 7).appends]),
            created("d"),
            said("a", 0),
            Unit([*created("e").appends], documents=[Document("nowhere", "k", b"x")]),
            said("a", 1),
        ]
    )
    committer.close()
    kinds = [type(o) if isinstance(o, Exception) else [r.position for r in places(o)] for o in outcomes]
    assert kinds == [
        [1],
        WrongExpectedVersion,
        WrongExpectedVersion,
        ClaimTaken,
        StreamNotFound,
        WrongExpectedVersion,
        [2],
        [3],
        StreamNotFound,
        [4],
    ]


def places(outcome: Outcome) -> list[Recorded]:
    assert isinstance(outcome, list)
    return [place for place in outcome if isinstance(place, Recorded)]


@pytest.mark.parametrize("size", [20, 30_000], ids=["within a page", "on pages of its own"])
async def test_erased_words_are_in_no_file(store: SqliteEventStore, tmp_path: Path, size: int) -> None:
    """Not in the database, not in the write-ahead log, nor in what the filesystem was asked to keep."""
    word = b"Rumpelstilzchen" * (size // 15)
    await store.append(created("kept", b"Rapunzel"))
    await store.append(created("a", word))
    await store.append(said("a", 0, word))
    await store.append(
        Unit(said("a", 1).appends, documents=[Document("a", "snapshot", word), Document("a", "sealed", word)])
    )
    assert found_in_files(tmp_path, "Rumpelstilzchen")
    await store.append(erased("a", 2))
    assert not found_in_files(tmp_path, "Rumpelstilzchen")
    assert found_in_files(tmp_path, "Rapunzel")
    await assert_sound(store)


def found_in_files(folder: Path, word: str) -> bool:
    # Another process looks: to close a file that SQLite has open would let go of SQLite's own locks.
    return subprocess.run(["grep", "-rqa", word, str(folder)], check=False).returncode == 0


async def test_erased_words_leave_the_write_ahead_log_once_readers_let_them(
    store: SqliteEventStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader in the middle of a page keeps the old bytes; the writer does not forget to try again."""
    monkeypatch.setattr(sqlite_commit, "_TRUNCATE_EVERY_S", 0.1)
    await store.append(created("a", b"Rumpelstilzchen"))
    reader = sqlite3.connect(f"file:{tmp_path}/log.db?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM records").fetchall()
    await store.append(erased("a", 0))
    assert found_in_files(tmp_path, "Rumpelstilzchen")
    reader.close()
    async with asyncio.timeout(PATIENCE_S):
        while found_in_files(tmp_path, "Rumpelstilzchen"):  # noqa: ASYNC110  # Files set no events.
            await asyncio.sleep(0.05)


async def test_a_failed_commit_is_told_and_the_next_one_succeeds(tmp_path: Path) -> None:
    """A full disk: everybody of that commit hears it, nothing is recorded, and room makes it work again."""
    migrate_sqlite(tmp_path / "log.db")
    committer = SqliteCommitter(tmp_path / "log.db")
    assert committer.commit([created("a")]) == [[Recorded("a", 1, 0, 0, ANY_TIME)]]
    connection = committer._connection
    assert connection is not None
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    large = b"x" * 100_000
    outcomes = committer.commit([said("a", 0, large), created("b", large), said("a", 0)])
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable, StoreUnavailable, StoreUnavailable]
    # The limit went with the connection: after a failure it is never used again.
    assert committer._connection is not connection
    assert committer.commit([said("a", 0)]) == [[Recorded("a", 2, 1, 1, ANY_TIME)]]
    committer.close()


class _AnyTime(int):
    """Equal to every time."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int)

    __hash__ = int.__hash__


ANY_TIME = _AnyTime()


async def test_a_foreign_writer_is_noticed_and_nothing_of_his_is_overwritten(tmp_path: Path) -> None:
    """The heads in memory are a guess that every commit checks."""
    migrate_sqlite(tmp_path / "log.db")
    ours = SqliteCommitter(tmp_path / "log.db")
    ours.commit([created("a")])
    theirs = SqliteCommitter(tmp_path / "log.db")
    theirs.commit([said("a", 0, b"theirs")])
    theirs.let_go()
    (refused,) = ours.commit([said("a", 0, b"ours")])
    assert isinstance(refused, WrongExpectedVersion)
    assert places(ours.commit([said("a", 1, b"ours")])[0])[0].position == 3
    ours.close()
    reader = SqliteLogReader(tmp_path)
    await assert_sound(reader)
    await reader.aclose()


async def test_an_unknown_outcome_is_found_out(store: SqliteEventStore) -> None:
    """The commit happened, its answer got lost: the store recognises its own record, and nobody else's."""
    await store.append(created("a"))
    owner = store._writer
    assert owner is not None
    lost = AnswersGetLost(owner)
    store._writer = lost  # type: ignore[assignment]  # It stands in for an owner whose socket breaks.
    lost.losses = 1
    (place,) = await store.append(said("a", 0, b"mine"))
    assert (place.position, place.first_version) == (2, 1)
    lost.losses = 1
    head = await store.take("a", epoch=1, owner="me")
    assert (head.epoch, head.owner) == (2, "me")
    lost.losses, lost.commits = 1, False
    rival = Append("a", 1, 2, [NewEvent("said", b"mine")])
    lost.before_retry = Unit([Append("a", 1, 2, [NewEvent("said", b"theirs")])])
    with pytest.raises(WrongExpectedVersion):
        await store.append(Unit([rival]))
    store._writer = owner
    assert [record.payload async for record in store.read("a", 1)] == [(b"theirs",)]


class AnswersGetLost:
    """An owner that says nothing for some requests, having committed them or not."""

    is_usable = True

    def __init__(self, owner: object) -> None:
        self.owner, self.losses, self.commits = owner, 0, True
        self.before_retry: Request | None = None

    async def submit(self, request: Request) -> Answer:
        submit = self.owner.submit  # type: ignore[attr-defined]  # Any owner has it.
        if self.losses:
            self.losses -= 1
            if self.commits:
                await submit(request)
            if self.before_retry is not None:
                await submit(self.before_retry)
            raise OutcomeUnknown("lost")
        answer: Answer = await submit(request)
        return answer


async def test_a_cancelled_caller_does_not_stop_the_writer(store: SqliteEventStore) -> None:
    """Whatever callers do meanwhile, those who stay get what is theirs."""
    tasks = [asyncio.create_task(store.append(created(f"s{n}"))) for n in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, list) for outcome in outcomes[1::2])
    await store.append(created("after"))
    await assert_sound(store)


async def test_what_waits_is_bounded() -> None:
    """By count and by bytes; the next one waits in line, and a large one is not overtaken for ever."""
    room = Room(requests=2, size=100)
    await room.enter(60)
    large = asyncio.create_task(room.enter(90))
    small = asyncio.create_task(room.enter(10))
    gone = asyncio.create_task(room.enter(10))
    await asyncio.sleep(0)
    assert not large.done()
    assert not small.done()
    gone.cancel()
    room.leave(60)
    await large
    await small
    assert not room._fits(1)
    room.leave(90)
    room.leave(10)
    assert room._fits(100)


async def test_leases_outlive_the_change_of_the_writer(tmp_path: Path) -> None:
    """A new writer gives the living a whole new term, and leaves the buried where they are."""
    now = 1000.0
    store = await SqliteEventStore.open(tmp_path, may_own=True, monotonic=lambda: now)
    new = NewStream("response", "p1", "running", owner="alive")
    await store.append(Unit([Append("a", NO_STREAM, 1, [NewEvent("said", b"x")], new=new)]))
    await store.renew("alive", 3.0)
    await store.renew("dead", 3.0)
    await store.bury("dead")
    await store.aclose()
    now = 2.0  # The machine was started anew: its clock began again.
    store = await SqliteEventStore.open(tmp_path, may_own=True, monotonic=lambda: now)
    assert await store.expired() == []
    with pytest.raises(LeaseLost):
        await store.renew("dead", 3.0)
    for seconds in (3.0, 4.0, 5.5):
        now = seconds
        expired = await store.expired()
    assert expired == ["alive"]
    await store.aclose()


def test_nobody_dies_of_a_slow_disk(tmp_path: Path) -> None:
    """Whoever renews while a commit waits for the disk waits behind it: dead is who was dead before."""
    now = 0.0

    def slow(count: int) -> bytes:
        nonlocal now
        now += 10.0  # Entropy is asked for in the middle of a commit, like the disk.
        return bytes(count)

    migrate_sqlite(tmp_path / "log.db")
    committer = SqliteCommitter(tmp_path / "log.db", monotonic=lambda: now, entropy=slow)
    committer.commit([Renew("alive", 3.0)])
    new = NewStream("response", "p1", "running", owner="alive")
    begun = Unit([Append("a", NO_STREAM, 1, [NewEvent("said", b"x")], new=new)])
    assert committer.commit([begun, Expired()])[1] == []
    assert committer.commit([Expired()]) == [[]], "its renewal may wait behind this question too"
    for _ in range(2):
        now += 1.0
        committer.commit([Expired()])
    now += 1.0
    assert committer.commit([Expired()]) == [["alive"]]
    committer.close()


async def test_a_writer_that_is_stuck_in_the_disk_counts_as_hung(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process lives and its socket takes requests, but nothing is committed: that must be noticed."""
    stuck, go_on = threading.Event(), threading.Event()
    commit = SqliteCommitter.commit

    def slow(committer: SqliteCommitter, requests: Sequence[Request]) -> list[Outcome]:
        if any(isinstance(request, Unit) for request in requests):
            stuck.set()
            go_on.wait(30)
        return commit(committer, requests)

    owner = await SqliteEventStore.open(tmp_path, may_own=True)
    client = await RemoteWriter.connect(tmp_path, 5.0)
    monkeypatch.setattr(SqliteCommitter, "commit", slow)
    monkeypatch.setattr(remote_writer, "_TICK_S", 0.1)
    try:
        with pytest.raises(OutcomeUnknown):
            await asyncio.wait_for(client.submit(created("a")), PATIENCE_S)
        assert stuck.is_set()
        assert client.hangs
        with pytest.raises(OwnerHangs):
            await RemoteWriter.connect(tmp_path, 0.1)
    finally:
        go_on.set()
        await client.aclose()
    other = await SqliteEventStore.open(tmp_path, may_own=False)
    assert (await other.head("a")) is not None, "it was only slow"
    await other.aclose()
    await owner.aclose()


@pytest.mark.parametrize("in_process", [True, False])
async def test_a_thread_renews_while_the_event_loops_are_blocked(tmp_path: Path, in_process: bool) -> None:
    """A tool that blocks its process's event loop costs no lease, be it the owner's process or another."""
    owner = await SqliteEventStore.open(tmp_path, may_own=True)
    store = owner if in_process else await SqliteEventStore.open(tmp_path, may_own=False)
    thread = threading.Thread(target=store.renew_lease_blocking, args=("host-1", 3.0))
    thread.start()
    thread.join(10)  # The event loop is blocked here.
    assert not thread.is_alive()
    await owner.bury("host-1")
    with pytest.raises(LeaseLost):
        await asyncio.to_thread(store.renew_lease_blocking, "host-1", 3.0)
    if store is not owner:
        await store.aclose()
    await owner.aclose()


async def test_reading_before_there_is_a_log_says_what_is_missing(tmp_path: Path) -> None:
    """A reader creates nothing, and works as soon as the owner has started."""
    reader = SqliteLogReader(tmp_path)
    with pytest.raises(StoreUnavailable, match=r"log\.db does not exist yet"):
        await reader.incarnation()
    assert os.listdir(tmp_path) == []
    store = await SqliteEventStore.open(tmp_path, may_own=True)
    assert await reader.incarnation() == await store.incarnation()
    await reader.aclose()
    await store.aclose()


async def test_without_an_owner_a_write_fails_in_time_and_a_read_does_not(tmp_path: Path) -> None:
    owner = await SqliteEventStore.open(tmp_path, may_own=True)
    await owner.append(created("a"))
    await owner.aclose()
    store = SqliteEventStore(tmp_path, may_own=False, patience=0.2)
    with pytest.raises(StoreUnavailable, match="nobody owned"):
        await store.append(said("a", 0))
    assert await store.head("a") is not None
    await store.aclose()


async def test_a_writer_that_is_closed_commits_what_waits(committer: SqliteCommitter) -> None:
    writer = SqliteWriter(committer)
    tasks = [asyncio.create_task(writer.submit(created(f"s{n}"))) for n in range(50)]
    await asyncio.sleep(0)
    await asyncio.to_thread(writer.close)
    assert len(await asyncio.gather(*tasks)) == 50
    with pytest.raises(StoreUnavailable, match="closed"):
        await writer.submit(created("late"))


class Watched(SqliteCommitter):
    """Tells which thread commits what, and can be slow."""

    def __init__(self, path: Path) -> None:
        migrate_sqlite(path)
        super().__init__(path)
        self.threads: list[tuple[str, int]] = []
        self.takes_s = 0.0
        self.gate = threading.Event()
        self.gate.set()

    def commit(self, requests: Sequence[Request]) -> list[Outcome]:
        self.gate.wait(PATIENCE_S)
        time.sleep(self.takes_s)
        self.threads.append((threading.current_thread().name, len(requests)))
        return super().commit(requests)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncGenerator[tuple[SqliteWriter, Watched]]:
    committer = Watched(tmp_path / "log.db")
    writer = SqliteWriter(committer)
    yield writer, committer
    await asyncio.to_thread(writer.close)


async def test_an_event_loop_commits_what_its_tasks_submit_together(
    watched: tuple[SqliteWriter, Watched],
) -> None:
    writer, committer = watched
    await asyncio.gather(*(writer.submit(created(f"s{n}")) for n in range(20)))
    assert committer.threads == [("MainThread", 20)]


async def test_what_is_large_is_committed_while_the_event_loop_goes_on(
    watched: tuple[SqliteWriter, Watched],
) -> None:
    writer, committer = watched
    committer.gate.clear()
    large = asyncio.create_task(writer.submit(created("large", b"x" * 200_000)))
    small = asyncio.create_task(writer.submit(created("small")))
    await asyncio.sleep(0.05)
    assert not large.done() or small.done()
    committer.gate.set()
    await asyncio.gather(large, small)
    assert {name for name, _ in committer.threads} == {"log-writer"}


async def test_what_erases_is_committed_by_the_thread(watched: tuple[SqliteWriter, Watched]) -> None:
    """The write-ahead log is emptied behind it, which takes long."""
    writer, committer = watched
    await writer.submit(created("a"))
    await writer.submit(Unit([Append("a", 0, 1, [NewEvent(ERASED, b"{}")], erase=True)]))
    assert [name for name, _ in committer.threads] == ["MainThread", "log-writer"]


async def test_a_slow_disk_does_not_stop_the_event_loop_for_long(
    watched: tuple[SqliteWriter, Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread takes over after a few commits, and gives back when the disk is quick again."""
    writer, committer = watched
    committer.takes_s = 0.02
    for number in range(20):
        await writer.submit(created(f"s{number}"))
    names = [name for name, _ in committer.threads]
    assert names[0] == "MainThread"
    assert "log-writer" in names
    committer.takes_s = 0.0
    async with asyncio.timeout(PATIENCE_S):
        number = 20
        while committer.threads[-1][0] != "MainThread":
            await writer.submit(created(f"s{number}"))
            number += 1


async def test_a_blocked_event_loop_holds_up_no_other(watched: tuple[SqliteWriter, Watched]) -> None:
    """What it has submitted itself is committed with what others submit."""
    writer, committer = watched
    waiting = asyncio.create_task(writer.submit(created("own")))
    await asyncio.sleep(0)
    # From here on this event loop is blocked, before it took its turn.
    other = threading.Thread(target=writer.submit_blocking, args=(Renew("host", 3.0), PATIENCE_S))
    other.start()
    other.join(PATIENCE_S)
    assert not other.is_alive()
    assert committer.threads == [("log-writer", 2)]
    await waiting


async def test_cancelled_readers_leave_the_reader_usable(store: SqliteEventStore) -> None:
    """One connection serves the whole process: nobody may take it along."""
    await store.append(created("a"))
    tasks = [asyncio.create_task(store.head("a")) for _ in range(100)]
    for turn, task in enumerate(tasks):
        if turn % 10 == 0:
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await store.head("a") is not None


def test_a_process_that_forgets_to_close_its_store_ends_all_the_same(tmp_path: Path) -> None:
    """No thread of the log keeps a process alive; what was acknowledged is there."""
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from eventstore.events import *; from eventstore.sql.sqlite import SqliteEventStore\n"
        "async def main():\n"
        "    store = await SqliteEventStore.open(Path(sys.argv[1]), may_own=True)\n"
        "    new = NewStream('response', 'p1', 'running')\n"
        "    await store.append(Unit([Append('a', -1, 1, [NewEvent('said', b'x')], new=new)]))\n"
        "    assert await store.head('a')\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
    migrate_sqlite(tmp_path / "log.db")
    committer = SqliteCommitter(tmp_path / "log.db")
    (refused,) = committer.commit([created("a")])
    committer.close()
    assert isinstance(refused, WrongExpectedVersion)
