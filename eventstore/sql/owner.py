"""The owner of the log's database: it holds the lock, writes, and serves those who do not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from eventstore.sql.migrate import migrate_sqlite
from eventstore.sql.owner_lock import OwnerLock
from eventstore.sql.requests import Answer, Request
from eventstore.sql.sqlite_commit import SqliteCommitter, wall_clock
from eventstore.sql.sqlite_connection import DATABASE
from eventstore.sql.sqlite_writer import SqliteWriter


class LogOwner:
    """The one writer of a data directory."""

    def __init__(self, lock: OwnerLock, writer: SqliteWriter) -> None:
        self._lock, self._writer = lock, writer

    @classmethod
    def try_own(
        cls,
        data_dir: Path,
        *,
        now: Callable[[], int] = wall_clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> LogOwner | None:
        """Own the directory if nobody does: take the lock, migrate, start to write.  Blocks."""
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = OwnerLock.try_take(data_dir)
        if lock is None:
            return None
        try:
            migrate_sqlite(data_dir / DATABASE)
            writer = SqliteWriter(SqliteCommitter(data_dir / DATABASE, now=now, monotonic=monotonic))
        except BaseException:
            lock.release()
            raise
        return cls(lock, writer)

    @property
    def is_usable(self) -> bool:
        """Always: an owner stays one until it is closed."""
        return True

    async def submit(self, request: Request) -> Answer:
        """Commit a request."""
        return await self._writer.submit(request)

    def submit_blocking(self, request: Request, timeout: float) -> Answer:
        """Commit a request, for a thread without an event loop."""
        return self._writer.submit_blocking(request, timeout)

    async def aclose(self) -> None:
        """Commit what waits, then let another process own the directory."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._lock.release()
