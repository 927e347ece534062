"""Brings a Postgres database to the newest schema.  Running it again, or killing it, changes nothing."""

from __future__ import annotations

import secrets
from typing import Final

import asyncpg
from alembic.util import CommandError
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from eventstore.errors import StoreUnavailable
from eventstore.sql.migrate import script, upgrade
from eventstore.sql.postgres_connection import LOST, PostgresDatabase
from eventstore.sql.schema import LOG

_LOCK: Final = int.from_bytes(b"migrates", "big")
"""Of Postgres' advisory locks: one migration at a time."""
_LONGEST_S: Final = 3600.0


async def look(url: str) -> str:
    """What is at `url`, in words.  Raises `UnsafeStore`, `StoreUnavailable`; also for another version."""
    database = PostgresDatabase(url)
    try:
        ((server,),) = await database.fetch("SHOW server_version")
        ((found,),) = await database.fetch("SELECT version_num FROM alembic_version")
    finally:
        await database.aclose()
    newest = script().get_current_head()
    if found != newest:
        raise StoreUnavailable(
            f"{database.place} holds a log of revision {found}, not {newest}: run rayspond migrate"
        )
    return f"{database.place}, Postgres {server}: safe, and holds a log of this version"


async def migrate_postgres(url: str, *, restored: bool = False) -> None:
    """Create or upgrade the log in the Postgres database at `url`, in one transaction, one process at a time.

    `restored` gives the log a new incarnation: after a restore from a backup its positions mean other events.
    Raises `StoreUnavailable`, `UnsafeStore`.
    """
    database = PostgresDatabase(url)

    async def connect() -> asyncpg.Connection:
        return await database.connect(_LONGEST_S)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            await connection.run_sync(upgrade)
            if restored:
                await connection.execute(update(LOG).values(incarnation=secrets.token_hex(16)))
    except (*LOST, CommandError) as error:
        raise StoreUnavailable(database.remedy(error)) from error
    finally:
        await engine.dispose()
        await database.aclose()
