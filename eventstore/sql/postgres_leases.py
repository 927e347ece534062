"""Renews a lease from a plain thread, over a connection and an event loop of that thread's own."""

from __future__ import annotations

import asyncio
import threading
from typing import Final

import asyncpg

from eventstore.errors import LeaseLost, StoreUnavailable
from eventstore.sql.postgres_connection import LOST, PostgresDatabase, close

RENEW: Final = "SELECT renew_lease($1, $2, $3)"


class BlockingLeases:
    """The leases of a process whose event loop may be blocked."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._turn = threading.Lock()
        self._runner = asyncio.Runner()
        self._connection: asyncpg.Connection | None = None

    def renew(self, holder: str, ttl: float) -> None:
        """Begin a new term of `ttl` seconds.  Raises `LeaseLost`, `StoreUnavailable`, `UnsafeStore`."""
        with self._turn:
            self._runner.run(self._renew(holder, ttl))

    def close(self) -> None:
        """Let go of the connection."""
        with self._turn:
            if self._connection is not None:
                self._runner.run(close(self._connection))
            self._connection = None
            self._runner.close()

    async def _renew(self, holder: str, ttl: float) -> None:
        try:
            if self._connection is None:
                self._connection = await self._database.connect()
            renewed = await self._connection.fetchval(RENEW, holder, round(ttl * 1000), None)
        except LOST as error:
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            raise StoreUnavailable(self._database.remedy(error)) from error
        if not renewed:
            raise LeaseLost(holder)
