"""The SQLite schema: the database itself refuses to change or to forget what was recorded."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from eventstore.errors import UnsafeStore
from eventstore.events import ERASED, NO_STREAM, Append, NewEvent, NewStream, Unit
from eventstore.sql import log_reader, migrate, sqlite_connection
from eventstore.sql.migrate import migrate_sqlite
from eventstore.sql.schema import METADATA
from eventstore.sql.sqlite_commit import SqliteCommitter
from eventstore.sql.sqlite_connection import connect_writer


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with stream 1: one record, its erasure, and one record after it; and stream 2, whole.

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
    ],
)
def test_the_database_refuses_to_rewrite_the_log(database: sqlite3.Connection, statement: str) -> None:
    """Append-only, whoever asks: neither the words nor the headers, nor what proves them, can be changed."""
    before = list(database.iterdump())
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        database.execute(statement)
    assert list(database.iterdump()) == before


def test_migrating_again_changes_nothing(path: Path, database: sqlite3.Connection) -> None:
    before = list(database.iterdump())
    migrate_sqlite(path)
    assert list(database.iterdump()) == before


def test_an_old_log_gets_what_came_later_and_keeps_all_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    engine.dispose()
    committer = SqliteCommitter(path)
    new = NewStream("response", "p1", "running")
    committer.commit([Unit([Append("one", NO_STREAM, 1, [NewEvent("said", b"a word")], new=new)])])
    committer.close()
    kept = "SELECT name, tenant, created, payload FROM streams JOIN payloads ON position = created"
    with closing(sqlite3.connect(path)) as connection:
        before = connection.execute(kept).fetchall()
    migrate_sqlite(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(kept).fetchall() == before != []
        indexes = {name for _, name, *_ in connection.execute("PRAGMA index_list(streams)")}
        assert "streams_tenant" in indexes


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (log_reader._STORED, "streams_tenant"),
        (log_reader._HEAD, "sqlite_autoindex_streams_1"),
    ],
)
def test_a_question_about_one_tenant_looks_at_no_other(
    database: sqlite3.Connection, query: str, index: str
) -> None:
    asked = {"tenant": "p1", "after": 0, "limit": 500, "stream": "one"}
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {query}", asked)]
    assert any(index in step for step in plan)
    assert not [step for step in plan if step.startswith("SCAN streams")]


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
