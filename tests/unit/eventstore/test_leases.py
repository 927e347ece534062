"""Leases by the writer's clock: nobody dies of a writer that stood still, and the dead are forgotten."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from eventstore.errors import LeaseLost
from eventstore.events import NO_STREAM, Append, Claim, NewEvent, NewStream, Unit
from eventstore.sql.leases import BURIED_KEPT, FORGET_S, Leases
from eventstore.sql.migrate import migrate_sqlite
from eventstore.sql.requests import Bury, Expired, Renew
from eventstore.sql.sqlite_commit import SqliteCommitter


class Now:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def committer(tmp_path: Path, now: Now) -> SqliteCommitter:
    migrate_sqlite(tmp_path / "log.db")
    return SqliteCommitter(tmp_path / "log.db", now=lambda: int(now() * 1000), monotonic=now)


def rows(tmp_path: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(tmp_path / "log.db") as connection:
        return connection.execute(query).fetchall()


def owned(stream: str, owner: str, claims: tuple[Claim, ...] = ()) -> Unit:
    new = NewStream("response", "p1", "running", owner=owner)
    return Unit([Append(stream, NO_STREAM, 1, [NewEvent("said", b"x")], new=new)], claims)


def test_nobody_dies_of_a_writer_that_stood_still(committer: SqliteCommitter, now: Now) -> None:
    """Their renewals wait behind the question who is dead; who was late before the pause stays late."""
    committer.commit([Renew("h1", 3.0), Renew("h2", 3.0), Renew("late", 0.5)])
    committer.commit([owned("a", "h1"), owned("b", "h2"), owned("c", "late")])
    now.seconds += 1.0
    assert committer.commit([Expired()]) == [["late"]]
    now.seconds += 60.0
    assert committer.commit([Expired()]) == [["late"]]
    committer.commit([Renew("h1", 3.0)])
    for _ in range(3):
        now.seconds += 0.9
        committer.commit([Expired()])
    assert committer.commit([Expired()]) == [["h2", "late"]], "what it had left when the pause began is over"


def test_a_pause_lengthens_no_term_that_was_over() -> None:
    now = Now()
    leases = Leases([("h1", 1000, False)], now)
    now.seconds += 1.4
    assert leases.dead(["h1"], leases.look()) == ["h1"]
    now.seconds += 30.0
    assert leases.dead(["h1"], leases.look()) == ["h1"]


def test_the_dead_are_forgotten_once_others_own_what_they_had(
    committer: SqliteCommitter, now: Now, tmp_path: Path
) -> None:
    """Every dedicated response has a host, and so a lease, of its own."""
    committer.commit([Renew("owner", 3.0), owned("a", "owner"), Bury("owner")])
    for number in range(BURIED_KEPT + 100):
        committer.commit([Renew(f"host-{number}", 3.0), Bury(f"host-{number}")])
    assert len(rows(tmp_path, "SELECT * FROM leases")) <= BURIED_KEPT + 1
    assert committer.commit([Expired()]) == [["owner"]]
    last = f"host-{BURIED_KEPT + 99}"
    assert [type(outcome) for outcome in committer.commit([Renew("owner", 3.0), Renew(last, 3.0)])] == [
        LeaseLost,
        LeaseLost,
    ]


def test_a_lease_that_nobody_renews_is_forgotten(
    committer: SqliteCommitter, now: Now, tmp_path: Path
) -> None:
    """Whoever is ended with the whole system is buried by nobody."""
    committer.commit([Renew("owner", 3.0), Renew("gone", 3.0), owned("a", "owner")])
    for _ in range(int(FORGET_S) + 10):
        now.seconds += 1.0
        committer.commit([Expired()])
    committer.commit([Renew("new", 3.0)])
    assert rows(tmp_path, "SELECT holder FROM leases ORDER BY holder") == [("new",), ("owner",)]
    assert committer.commit([Expired()]) == [["owner"]]


def test_claims_that_expired_are_deleted(committer: SqliteCommitter, now: Now, tmp_path: Path) -> None:
    """Bit by bit, whenever another one is taken; those that hold stay."""
    ms = int(now() * 1000)
    for number in range(200):
        until = (None, ms + 1000, ms + 10**9)[number % 3]
        committer.commit([owned(f"s{number}", "h", (Claim("s", f"k{number}", b"f", "s", until),))])
    now.seconds += 2
    for number in range(200, 230):
        committer.commit([owned(f"s{number}", "h", (Claim("s", f"k{number}", b"f", "s", None),))])
    assert rows(tmp_path, f"SELECT count(*) FROM claims WHERE expires_at = {ms + 1000}") == [(0,)]
    assert rows(tmp_path, "SELECT count(*) FROM claims") == [(230 - 67,)]
