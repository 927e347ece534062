"""The SQLite schema: the database itself refuses to change or to forget what was recorded."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from eventstore.errors import StoreUnavailable, UnsafeStore
from eventstore.events import (
    ERASED,
    NO_STREAM,
    SEALED,
    SEALS,
    Append,
    Block,
    NewEvent,
    NewStream,
    Seal,
    Unit,
)
from eventstore.ports import LogReader
from eventstore.sealing import seal
from eventstore.sql import migrate, sqlite_connection
from eventstore.sql.migrate import migrate_sqlite
from eventstore.sql.reader import SqliteLogReader
from eventstore.sql.schema import METADATA, REVISION
from eventstore.sql.sqlite import SqliteEventStore
from eventstore.sql.sqlite_commit import SqliteCommitter
from eventstore.sql.sqlite_connection import DATABASE, connect_writer
from tests.contract.store_contract import records
from tests.contract.test_sealed_documents import SEALED_BEFORE, answered, read_and_erase


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with stream 1: one record, its erasure, and one record after it; stream 2, whole; and
    stream 3, sealed.

    No test may change it, so that all may share it.
    """
    path = tmp_path_factory.mktemp("log") / "log.db"
    migrate_sqlite(path)
    committer = SqliteCommitter(path)
    new = NewStream("response", "p1", "running")
    said = [NewEvent("said", b"a word")]
    committer.commit(
        [
            Unit([Append("one", NO_STREAM, 1, said, new=new)]),
            Unit([Append("one", 0, 1, [NewEvent(ERASED, b"why")], erase=True)]),
            Unit([Append("one", 1, 1, said)]),
            Unit([Append("two", NO_STREAM, 1, said, new=new)]),
        ]
    )
    committer.commit([Unit([Append("three", NO_STREAM, 1, said, new=new)])])
    with closing(sqlite3.connect(path)) as connection:
        (link,) = connection.execute("SELECT chain FROM records WHERE position = 5").fetchone()
    seal = Seal("three", 0, 1, [Block("three", 0, 0, 5, 5, link, b"a block")])
    event = NewEvent(SEALED, b"{}")
    committer.commit([Unit([Append(SEALS, NO_STREAM, 1, [event], new=new)], seals=[seal])])
    committer.close()
    return path


@pytest.fixture
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET recorded_at = 0 WHERE position = 1",
        "DELETE FROM records WHERE position = 1",
        "INSERT OR REPLACE INTO records SELECT * FROM records WHERE position = 4",
        "INSERT OR REPLACE INTO records SELECT 5, stream_id, first_version, types, schema, epoch,"
        " recorded_at, digest, chain FROM records WHERE position = 4",
        "INSERT INTO records SELECT 6, 9, 0, types, schema, epoch, recorded_at, digest, chain FROM records"
        " WHERE position = 4",
        "UPDATE payloads SET payload = x'00' WHERE position = 4",
        "INSERT OR REPLACE INTO payloads VALUES (4, x'00')",
        "DELETE FROM payloads WHERE position = 2",
        "DELETE FROM payloads WHERE position = 3",
        "DELETE FROM payloads WHERE position = 4",
        "UPDATE salts SET salt = x'00'",
        "INSERT OR REPLACE INTO salts SELECT stream_id, from_version, x'00' FROM salts",
        "DELETE FROM salts WHERE stream_id = 1",
        "DELETE FROM salts WHERE stream_id = 2",
        "INSERT INTO erasures VALUES (2, 0)",
        "INSERT INTO erasures VALUES (2, 1)",
        "UPDATE erasures SET version = 2",
        "DELETE FROM erasures",
        "DELETE FROM records WHERE position = 6",
        "DELETE FROM blocks",
        "UPDATE blocks SET data = x'00'",
        "UPDATE blocks SET salt = NULL",
        "INSERT OR REPLACE INTO blocks SELECT stream_id, 0, 0, 5, 5, chain, x'00', salt, NULL FROM blocks",
        "INSERT INTO blocks SELECT stream_id, 0, 0, 4, 4, x'00', x'00', x'00', NULL FROM records"
        " WHERE position = 4",
    ],
)
def test_the_database_refuses_to_rewrite_the_log(database: sqlite3.Connection, statement: str) -> None:
    """Append-only, whoever asks: neither the words nor the headers, nor what proves them, can be changed."""
    before = list(database.iterdump())
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        database.execute(statement)
    assert list(database.iterdump()) == before


def test_a_log_of_the_newest_revision_is_known_without_looking_at_the_migrations() -> None:
    assert migrate.script().get_current_head() == REVISION


def test_migrating_again_changes_nothing(path: Path, database: sqlite3.Connection) -> None:
    before = list(database.iterdump())
    migrate_sqlite(path)
    assert list(database.iterdump()) == before


OLD = """
INSERT INTO streams (id, name, version, epoch, chain, category, tenant, state, created, attributes)
    VALUES (1, 'one', 0, 1, x'00', 'response', 'p1', 'running', 1, '{}');
INSERT INTO records VALUES (1, 1, 0, 'said', 1, 1, 0, x'00', x'00');
INSERT INTO payloads VALUES (1, x'00')"""
"""What the first schemas held."""


async def test_an_old_log_gets_what_came_later_and_keeps_all_it_holds(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    engine.dispose()
    kept = "SELECT name, tenant, created, payload FROM streams JOIN payloads ON position = created"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD)
        before = connection.execute(kept).fetchall()
    reader = SqliteLogReader(tmp_path)
    for ask in (reader.head("one"), anext(reader.read("none"))):
        with pytest.raises(StoreUnavailable, match=f"run rayspond migrate --data-dir {tmp_path}"):
            await ask
    migrate_sqlite(path)
    assert (head := await reader.head("one")) is not None
    assert not head.sealed
    await reader.aclose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(kept).fetchall() == before != []
        indexes = {name for _, name, *_ in connection.execute("PRAGMA index_list(streams)")}
        assert "streams_tenant" in indexes


async def test_a_stream_that_an_older_version_sealed_is_read_and_erased(tmp_path: Path) -> None:
    """Its salt and its documents lie in rows of their own."""
    store = await SqliteEventStore.open(tmp_path, may_own=True)
    await seal(store, [await answered(store, "a")], "the test", "")
    before = await records(store, "a")
    await store.aclose()
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.execute("DROP TRIGGER salts_no_delete")
        for statement in SEALED_BEFORE:
            connection.execute(statement)
        connection.execute("CREATE TRIGGER salts_no_delete BEFORE DELETE ON salts BEGIN SELECT 1; END")
        connection.commit()
    store = await SqliteEventStore.open(tmp_path, may_own=True)
    await read_and_erase(store, "a", before)
    await store.aclose()


class _Plans(SqliteLogReader):
    """Answers a question as the log does, and notes how SQLite goes about it."""

    def __init__(self, database: sqlite3.Connection) -> None:
        super().__init__(Path())
        self._database = database
        self.plan = ""

    async def _all(self, query: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        steps = self._database.execute(f"EXPLAIN QUERY PLAN {query}", dict(parameters))
        self.plan = " | ".join(step[3] for step in steps if " streams" in step[3])
        return self._database.execute(query, dict(parameters)).fetchall()

    async def aclose(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("ask", "way"),
    [
        (
            lambda log: log.stored("p1", after=0, limit=500),
            "SEARCH streams USING COVERING INDEX streams_tenant (tenant=? AND created>?)",
        ),
        (
            lambda log: log.tally(categories=["response"], states=["queued", "running"], tenant="p1"),
            "SEARCH streams USING COVERING INDEX streams_state (state=? AND category=? AND tenant=?)",
        ),
        (
            lambda log: log.tally(categories=["response"], states=["waiting"]),
            "SEARCH streams USING COVERING INDEX streams_state (state=? AND category=?)",
        ),
        (
            lambda log: log.heads(category="response", tenant="p1", states=["queued", "over"], limit=20),
            "SEARCH streams USING INDEX streams_tenant (tenant=?)",
        ),
        (
            lambda log: log.versions(["a", "b"]),
            "SEARCH streams USING INDEX sqlite_autoindex_streams_1 (name=?)",
        ),
        (
            lambda log: log.heads(category="response", tenant="p1", states=["queued"], limit=20),
            "SEARCH streams USING INDEX streams_state (state=? AND category=? AND tenant=?)",
        ),
        (
            lambda log: log.heads(category="response", sealed=False, after=7, limit=20),
            "SEARCH streams USING INDEX streams_unsealed (category=? AND created>?)",
        ),
    ],
)
async def test_a_question_reads_what_it_asks_for_and_no_more(
    database: sqlite3.Connection, ask: Callable[[LogReader], Awaitable[object]], way: str
) -> None:
    """An index leads to it: what other tenants store, and what stands elsewhere, costs nothing."""
    log = _Plans(database)
    await ask(log)
    assert log.plan == way


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """Half a schema would be taken for a whole one."""
    path = tmp_path / "log.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE leases (surprise)")
    with pytest.raises(Exception, match="leases already exists"):
        migrate_sqlite(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("leases",)]


def test_the_migrations_make_the_tables_that_the_code_names(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_a_database_that_is_not_durable_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the database says of itself counts, not what it was told: an ignored setting must not pass."""
    monkeypatch.setitem(sqlite_connection._NEEDED, "synchronous", "full")  # It answers 2, not this word.
    with pytest.raises(UnsafeStore, match="synchronous"):
        connect_writer(path)


def test_the_writer_syncs_every_commit_and_overwrites_what_is_deleted(path: Path) -> None:
    with closing(connect_writer(path)) as connection:
        asked = ("journal_mode", "synchronous", "secure_delete")
        found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in asked]
        assert found == ["wal", 2, 1]
