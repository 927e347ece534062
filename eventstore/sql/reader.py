"""Reads the log from its SQLite database: short queries on one read-only connection, none across a yield."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiosqlite
import orjson

from eventstore.errors import StoreUnavailable
from eventstore.sql.clock import wall_clock
from eventstore.sql.log_reader import SqlLogReader
from eventstore.sql.sqlite_connection import DATABASE

_VERSIONS: Final = "SELECT name, version FROM streams WHERE name IN (SELECT value FROM json_each(:streams))"
_BUSY_S: Final = 5.0
"""How long a query waits for a lock: whoever holds it may wait for a busy disk; a client would hear 503."""


class SqliteLogReader(SqlLogReader):
    """`LogReader` over `<data_dir>/log.db`, for any number of processes; it creates and writes nothing.

    `now` gives wall-clock milliseconds; claims expire by it.
    """

    def __init__(self, data_dir: Path, *, now: Callable[[], int] = wall_clock) -> None:
        super().__init__(now=now)
        self._path = Path(data_dir) / DATABASE
        self._connection: aiosqlite.Connection | None = None
        self._opening = asyncio.Lock()
        self._reader_closed = False

    async def aclose(self) -> None:
        """Let go of the connection; every later call raises `StoreUnavailable`."""
        self._reader_closed = True
        async with self._opening:
            connection, self._connection = self._connection, None
            if connection is not None:
                await connection.close()

    async def _all(self, query: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """All rows of one query, in a transaction that ends with it."""
        if self._reader_closed:
            raise StoreUnavailable("it is closed")
        try:
            connection = self._connection or await self._open()
            return list(await connection.execute_fetchall(query, parameters))
        except (sqlite3.Error, ValueError) as error:  # ValueError: the driver's word for a closed connection.
            raise StoreUnavailable(self._remedy(error)) from error

    async def versions(self, streams: Collection[str]) -> Mapping[str, int]:
        """See `LogReader`."""
        rows = await self._all(_VERSIONS, {"streams": orjson.dumps(list(streams)).decode()})
        return {row[0]: row[1] for row in rows}

    async def _open(self) -> aiosqlite.Connection:
        async with self._opening:
            if self._connection is None:
                if not self._path.exists():
                    # The driver would leave a thread behind that outlives this event loop.
                    raise StoreUnavailable(self._remedy(FileNotFoundError()))
                address = f"file:{quote(str(self._path.absolute()))}?mode=ro"
                # Without a transaction of its own, a query's snapshot of the log ends with the query.
                connecting = aiosqlite.connect(address, uri=True, isolation_level=None, timeout=_BUSY_S)
                # A process that ends without closing its store must end all the same.
                connecting._thread.daemon = True
                self._connection = await connecting
            return self._connection

    def _remedy(self, error: Exception) -> str:
        if not self._path.exists():
            return f"{self._path} does not exist yet; the process that owns the log creates it"
        if str(error).startswith(("no such table", "no such column")):
            remedy = f"run rayspond migrate --data-dir {self._path.parent}"
            return f"{self._path} holds no log of this version: {remedy}"
        return f"{self._path} cannot be read: {error}"
