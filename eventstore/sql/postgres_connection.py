"""How the log's Postgres database is reached: few connections, each checked, none that waits for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from eventstore.errors import OutcomeUnknown, StoreUnavailable, UnsafeStore

POOL_MAX: Final = 4
"""Connections that a process has beside its writer's; opened when they are needed."""
_POOL_WAIT_S: Final = 5.0
_CONNECT_S: Final = 5
_VERSION_MIN: Final = 140000

PAGE_S: Final = 5.0
"""The longest that a page of the log, or any other short statement, may take in the database: its blocks may
all have to come from a slow disk, and a page that never comes in time never comes at all."""
_STALL_S: Final = 1.0
"""A statement that took longer than this is counted: the server may have stood still."""
COMMIT_S: Final = 10.0
"""The same for a commit of many units, most of it waiting for others and for the disk."""
_GRACE_S: Final = 5.0
"""Longer than the database may take, before a connection counts as broken: it may only be slow to tell."""

_SAFE: Final = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "remote_apply"),
}
"""What must be said by the server itself, or a crash loses what was acknowledged."""

_SESSION: Final = {
    "application_name": "rayspond",
    # A group looks for the newest position after it has waited for its turn: it must see what others made.
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "5000",
    # Plans are made while the tables are small and kept while they grow.
    "enable_seqscan": "off",
    "jit": "off",
}

_LOOK: Final = "SELECT current_setting('server_version_num')::int, pg_is_in_recovery()" + "".join(
    f", current_setting('{name}')" for name in _SAFE
)

LOST: Final = (
    *(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError),
    *(PoolTimeout, DBAPIError),  # What the pool makes of them.
)
"""What a database that is away, restarts or refuses raises."""

_OLDER: Final = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError)
"""What one raises that was made for something else, or for an earlier version."""


class PostgresDatabase:
    """A Postgres database, by its URL; connects when it is first asked.

    The URL is a libpq one, such as `postgresql://user:password@host:5432/database?sslmode=verify-full`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._closed = False
        self.stalls = 0
        """Statements answered later than the server lets any run: it, or this process, stood still."""
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            # The driver reads the URL itself, so that it means what it means to Postgres' own programs.
            async_creator=self.connect,
            pool_size=POOL_MAX,
            max_overflow=0,
            pool_timeout=_POOL_WAIT_S,
            pool_reset_on_return=None,  # Every statement is its own transaction: there is nothing to reset.
        )

    @property
    def place(self) -> str:
        """Where it is, for people: without the password."""
        return shown(self._url)

    async def connect(self, statement_s: float = PAGE_S) -> asyncpg.Connection:
        """A connection whose statements end within `statement_s`.  The caller closes it.

        Raises `UnsafeStore` where the server would lose acknowledged events, and what the driver raises.
        """
        longest_ms = str(int(statement_s * 1000))
        try:
            connection = await asyncpg.connect(
                self._url,
                timeout=_CONNECT_S,
                command_timeout=statement_s + _GRACE_S,
                server_settings=_SESSION | {"statement_timeout": longest_ms, "lock_timeout": longest_ms},
            )
        except ValueError as error:
            if isinstance(error, asyncpg.InterfaceError):
                raise
            # What the URL's reader says may hold a piece of the password.
            raise StoreUnavailable(
                "the log's URL cannot be read: it is postgresql://user:password@host:5432/database,"
                " and signs such as @ / : in the password are written as %40 %2F %3A"
            ) from None
        try:
            await self._check(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def fetch(self, query: str, *parameters: object, writes: bool = False) -> Sequence[Sequence[Any]]:
        """All rows of one short statement, which is its own transaction.

        Raises `UnsafeStore`, `StoreUnavailable`, and for one that `writes` also `OutcomeUnknown`.
        """
        if self._closed:
            raise StoreUnavailable("it is closed")
        try:
            async with self._engine.connect() as pooled:
                return await self._fetch(pooled, query, parameters, writes)
        except LOST as error:
            raise StoreUnavailable(self.remedy(error)) from error

    async def _fetch(
        self, pooled: AsyncConnection, query: str, parameters: Sequence[object], writes: bool
    ) -> Sequence[Sequence[Any]]:
        driver = await self._living(pooled)
        asked = time.monotonic()
        try:
            rows: Sequence[Sequence[Any]] = await driver.fetch(query, *parameters)
        except LOST as error:
            if isinstance(error, TimeoutError):
                # It hangs, or its server is gone without a word: never again.
                await pooled.invalidate()
            if writes:
                raise self.commit_error(error) from error
            raise
        if time.monotonic() - asked > _STALL_S:
            self.stalls += 1
        return rows

    async def _living(self, pooled: AsyncConnection) -> asyncpg.Connection:
        """Its driver's connection; those that died in the pool are replaced."""
        for _ in range(POOL_MAX + 1):
            driver = (await pooled.get_raw_connection()).driver_connection
            assert driver is not None, "what is checked out is connected"
            if not driver.is_closed():
                return driver
            await pooled.invalidate()
        raise StoreUnavailable(f"{self.place} closes every connection")

    async def aclose(self) -> None:
        """Close all connections of the pool."""
        self._closed = True
        await self._engine.dispose()

    def remedy(self, error: BaseException | None) -> str:
        """What is wrong, for people.  No error of the driver holds the URL."""
        if isinstance(error, DBAPIError):
            error = (error.orig and error.orig.__cause__) or error.orig
        if isinstance(error, _OLDER):
            return f"{self.place} holds no log of this version: run rayspond migrate"
        if isinstance(error, PoolTimeout):
            return f"all {POOL_MAX} connections to {self.place} were busy for {_POOL_WAIT_S:g} s"
        return f"{self.place}: {str(error) or type(error).__name__}"

    def commit_error(self, error: Exception) -> StoreUnavailable:
        """What became of a statement that was sent and failed."""
        # A session that goes on has rolled its transaction back.  One that ended may have committed.
        aborted = isinstance(error, asyncpg.PostgresError) and error.as_dict().get("severity_en") == "ERROR"
        return (StoreUnavailable if aborted else OutcomeUnknown)(self.remedy(error))

    async def _check(self, connection: asyncpg.Connection) -> None:
        ((version, standby, *settings),) = await connection.fetch(_LOOK)
        if version < _VERSION_MIN:
            raise UnsafeStore("Postgres' version", str(version // 10000), f"{_VERSION_MIN // 10000} or later")
        if standby:
            raise StoreUnavailable(f"{self.place} is a standby: name the primary")
        for (name, safe), found in zip(_SAFE.items(), settings, strict=True):
            if found not in safe:
                raise UnsafeStore(f"Postgres' {name}", found, safe[0])


def shown(url: str) -> str:
    """A database's URL without its user, password and options."""
    try:
        parts = urlsplit(url)
        if "@" in parts.path:
            raise ValueError("a slash within the password")
        host = parts.hostname or "localhost"
        return f"postgresql://{host}:{parts.port or 5432}{parts.path}"
    except ValueError:
        return "the log's Postgres database"


async def close(connection: asyncpg.Connection) -> None:
    """Say good-bye to the server if it listens; never raises."""
    try:
        await asyncio.wait_for(connection.close(), _GRACE_S)
    except LOST:
        connection.terminate()
