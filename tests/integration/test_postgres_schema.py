"""The Postgres schema: what it refuses, how it comes to be, and what the documented SQL makes of it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from eventstore.errors import StoreUnavailable
from eventstore.events import Document
from eventstore.sealing import seal
from eventstore.sql import migrate
from eventstore.sql.postgres import PostgresEventStore
from eventstore.sql.postgres_migrate import migrate_postgres
from eventstore.sql.schema import POSTGRES
from eventstore.verify import verify
from tests.contract.store_contract import create, erase, more, records, said_in, unit
from tests.contract.test_sealed_documents import SEALED_BEFORE, answered, read_and_erase
from tests.postgres_server import eventually, server

_PAGE: Final = Path(__file__).parents[2] / "docs/postgres.md"


@pytest.fixture
async def rows(postgres: str) -> AsyncIterator[asyncpg.Connection]:
    """The tables' owner, in a log of three streams: one erased and gone on, one whole, one sealed."""
    store = PostgresEventStore(postgres)
    for each in (create("one"), erase("one", 0), more("one", 1), create("two"), create("three")):
        await store.append(unit(each))
    head = await store.head("three")
    assert head is not None
    await seal(store, [head], "the test", "")
    await store.aclose()
    connection = await asyncpg.connect(postgres)
    yield connection
    await connection.close()


TABLES: Final = ("records", "payloads", "blocks", "salts", "erasures")
COLUMNS: Final = "stream_id, first_version, types, schema, epoch, recorded_at, digest, chain"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET recorded_at = 0 WHERE position = 1",
        "DELETE FROM records WHERE position = 1",
        "TRUNCATE records",
        f"INSERT INTO records SELECT 4, {COLUMNS} FROM records WHERE position = 4"
        " ON CONFLICT (position) DO UPDATE SET chain = ''",
        "INSERT INTO records SELECT 7, stream_id, 0, types, schema, epoch, recorded_at, digest, chain"
        " FROM records WHERE position = 3",
        "INSERT INTO records SELECT 8, 9, 0, types, schema, epoch, recorded_at, digest, chain FROM records"
        " WHERE position = 4",
        "INSERT INTO records SELECT 0, 9, 0, types, schema, epoch, recorded_at, digest, chain FROM records"
        " WHERE position = 4",
        "UPDATE payloads SET payload = '' WHERE position = 4",
        "INSERT INTO payloads VALUES (4, '') ON CONFLICT (position) DO UPDATE SET payload = ''",
        "INSERT INTO payloads VALUES (1, ''); DELETE FROM payloads WHERE position = 1",
        "DELETE FROM payloads WHERE position = 2",
        "DELETE FROM payloads WHERE position = 3",
        "DELETE FROM payloads WHERE position = 4",
        "TRUNCATE payloads",
        "UPDATE salts SET salt = ''",
        "DELETE FROM salts",
        "TRUNCATE salts",
        "INSERT INTO erasures SELECT stream_id, 0 FROM records WHERE position = 4",
        "INSERT INTO erasures SELECT stream_id, 1 FROM records WHERE position = 4",
        "INSERT INTO erasures SELECT stream_id, first_version FROM records WHERE position = 2"
        " ON CONFLICT DO NOTHING",
        "UPDATE erasures SET version = 2",
        "DELETE FROM erasures",
        "TRUNCATE erasures",
        "DELETE FROM records WHERE position = 6",
        "DELETE FROM blocks",
        "TRUNCATE blocks",
        "UPDATE blocks SET data = ''",
        "UPDATE blocks SET chain = ''",
        "UPDATE blocks SET salt = NULL",
        "INSERT INTO blocks SELECT stream_id, 0, 0, 4, 4, chain, '' FROM records WHERE position = 4",
    ],
)
async def test_the_database_refuses_to_rewrite_the_log(rows: asyncpg.Connection, statement: str) -> None:
    """Append-only, whoever asks; and nobody erases under the tombstone of another transaction."""
    before = [await rows.fetch(f"TABLE {table}") for table in TABLES]
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match=r"append-only|duplicate key"):
        await rows.execute(statement)
    after = [await rows.fetch(f"TABLE {table}") for table in TABLES]
    assert after == before


async def test_the_migrations_make_the_tables_that_the_code_names(postgres: str) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), POSTGRES))

    engine = create_async_engine(postgres.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_migrating_again_changes_nothing_and_a_restore_is_told(postgres: str) -> None:
    store = PostgresEventStore(postgres)
    await store.append(unit(create("a")))
    before = await store.incarnation(), await store.head("a")
    await migrate_postgres(postgres)
    assert (await store.incarnation(), await store.head("a")) == before
    await migrate_postgres(postgres, restored=True)
    assert await store.incarnation() != before[0]
    assert await store.head("a") == before[1]
    await store.aclose()


async def test_many_may_migrate_at_once(empty_postgres: str) -> None:
    """Every node of a cluster that starts: one does it, the others find it done."""
    await asyncio.gather(*(migrate_postgres(empty_postgres) for _ in range(5)))
    store = PostgresEventStore(empty_postgres)
    await store.append(unit(create("a")))
    await store.aclose()


async def test_a_migration_that_is_killed_leaves_nothing_behind(empty_postgres: str) -> None:
    """Killed in the midst of its tables, twice; the next one starts from nothing."""
    admin = await asyncpg.connect(empty_postgres)
    await admin.execute(
        "CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_sleep(0.2); END $$; CREATE EVENT TRIGGER slowly ON ddl_command_end"
        " WHEN tag IN ('CREATE TABLE', 'CREATE INDEX') EXECUTE FUNCTION slowly()"
    )
    for _ in range(2):
        migrating = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "serve_app.cli", "migrate"),
            env=os.environ | {"RAYSPOND_LOG_URL": empty_postgres},
        )

        await eventually(lambda: sessions(admin, "%CREATE %INDEX%"))
        migrating.kill()
        await migrating.wait()

        async def gone() -> bool:
            return not await sessions(admin)

        await eventually(gone)
        assert await admin.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await admin.execute("DROP EVENT TRIGGER slowly; DROP FUNCTION slowly")
    await admin.close()
    await migrate_postgres(empty_postgres)
    store = PostgresEventStore(empty_postgres)
    await store.append(unit(create("a")))
    await store.aclose()


async def sessions(admin: asyncpg.Connection, running: str = "%") -> int:
    """How many sessions of ours there are in the database, by what they run."""
    count: int = await admin.fetchval(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'rayspond' AND datname = current_database() AND query LIKE $1",
        running,
    )
    return count


async def test_a_database_without_a_log_names_the_remedy(empty_postgres: str) -> None:
    store = PostgresEventStore(empty_postgres)
    with pytest.raises(StoreUnavailable, match="run rayspond migrate"):
        await store.append(unit(create("a")))
    with pytest.raises(StoreUnavailable, match="run rayspond migrate"):
        await store.head("a")
    await store.aclose()


async def test_an_older_log_names_the_remedy_which_brings_what_came_later(empty_postgres: str) -> None:
    def older(connection: Connection) -> None:
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")

    engine = create_async_engine(empty_postgres.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.begin() as connection:
        await connection.run_sync(older)
    await engine.dispose()
    store = PostgresEventStore(empty_postgres)
    with pytest.raises(StoreUnavailable, match="run rayspond migrate"):
        await store.head("a")
    await migrate_postgres(empty_postgres)
    await store.append(unit(create("a")))
    await store.aclose()
    admin = await asyncpg.connect(empty_postgres)
    source = await admin.fetchval("SELECT prosrc FROM pg_proc WHERE proname = 'append_units'")
    assert "expired AS MATERIALIZED" in source
    await admin.close()


async def test_a_stream_that_an_older_version_sealed_is_read_and_erased(postgres: str) -> None:
    """Its salt and its documents lie in rows of their own."""
    store = PostgresEventStore(postgres)
    await seal(store, [await answered(store, "a")], "the test", "")
    before = await records(store, "a")
    admin = await asyncpg.connect(postgres)
    for statement in SEALED_BEFORE:
        await admin.execute(statement)
    await admin.close()
    await migrate_postgres(postgres)
    await read_and_erase(store, "a", before)
    await store.aclose()


def blocks(language: str) -> list[str]:
    """The SQL of the documentation's page."""
    return re.findall(rf"```{language}\n(.*?)```", _PAGE.read_text(), re.S)


async def test_the_documented_role_can_append_and_nothing_else(postgres: str) -> None:
    """It creates, appends, claims, erases, takes and renews; it cannot touch the triggers."""
    grants, _ = blocks("sql")
    role = f"app_{postgres.rpartition('/')[2]}"
    owner = await asyncpg.connect(postgres)
    await owner.execute(grants.replace("rayspond_app", role))
    store = PostgresEventStore(server().url(postgres.rpartition("/")[2], role))
    await migrate_postgres(server().url(postgres.rpartition("/")[2], role))
    await store.append(unit(create("a"), documents=(Document("a", "k", b"x"),)))
    await store.append(unit(more("a", 0), documents=(Document("a", "k", b""),)))
    head = await store.head("a")
    assert head is not None
    assert (await seal(store, [head], "the test", "")).streams == 1
    await store.append(unit(erase("a", 1, epoch=2)))
    await store.renew("h", 3.0)
    await store.bury("h")
    await store.take("a", epoch=2, owner="h")
    await store.save_cursor("relay", 1)
    assert await store.expired() == ["h"]
    assert [report async for report in verify(store)]
    await store.aclose()
    app = await asyncpg.connect(server().url(postgres.rpartition("/")[2], role))
    for forbidden in (
        "ALTER TABLE records DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "TRUNCATE payloads",
        "UPDATE records SET chain = ''",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute(forbidden)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await app.execute("DELETE FROM records")
    await app.close()
    await owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    await owner.close()


async def test_the_documented_partitions_hold_the_payloads(postgres: str) -> None:
    _, partitions = blocks("sql")
    owner = await asyncpg.connect(postgres)
    await owner.execute(partitions.replace("10000000", "3").replace("20000000", "6"))
    store = PostgresEventStore(postgres)
    await store.append(unit(create("a")))
    for version in range(7):
        await store.append(unit(more("a", version)))
    assert len(await said_in(store, "a")) == 8
    assert [await owner.fetchval(f"SELECT count(*) FROM payloads_{part}") for part in (0, 1, "rest")] == [
        2,
        3,
        3,
    ]
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await owner.execute("DELETE FROM payloads")
    await store.append(unit(erase("a", 7)))
    assert await owner.fetchval("SELECT count(*) FROM payloads") == 1
    assert [r async for r in verify(store) if getattr(r, "finding", r) is not None] == []
    await store.aclose()
    await owner.close()
