"""The owner of the log's database: it holds the lock, writes, and serves those who do not."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from eventstore.errors import StoreUnavailable
from eventstore.sql.clock import wall_clock
from eventstore.sql.owner_lock import OwnerLock
from eventstore.sql.requests import Answer, Request
from eventstore.sql.schema import REVISION
from eventstore.sql.sqlite_commit import SqliteCommitter
from eventstore.sql.sqlite_connection import DATABASE, connect_writer
from eventstore.sql.sqlite_writer import SqliteWriter
from eventstore.sql.writer_socket import WriterServer

_SWITCH_INTERVAL_S: Final = 0.0005
"""A tenth of Python's default: appends beside a busy loop took 10 ms, not 24, and it lost nothing."""


class LogOwner:
    """The one writer of a data directory."""

    def __init__(self, lock: OwnerLock, writer: SqliteWriter, server: WriterServer) -> None:
        self._lock, self._writer, self._server = lock, writer, server
        # A commit wins the interpreter back some five times, from a busy event loop after this interval.
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL_S))

    @classmethod
    def try_own(
        cls,
        data_dir: Path,
        *,
        now: Callable[[], int] = wall_clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> LogOwner | None:
        """Own the directory if nobody does: take the lock, migrate, start to write.  Blocks.

        Raises `StoreUnavailable` or `UnsafeStore` if that fails.
        """
        try:
            return cls._try_own(data_dir, now, monotonic)
        except (OSError, sqlite3.Error, SQLAlchemyError) as error:
            raise StoreUnavailable(f"{data_dir} cannot be used: {error}") from error

    @classmethod
    def _try_own(
        cls, data_dir: Path, now: Callable[[], int], monotonic: Callable[[], float]
    ) -> LogOwner | None:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = OwnerLock.try_take(data_dir)
        if lock is None:
            return None
        try:
            _prepare(data_dir / DATABASE)
            writer = SqliteWriter(SqliteCommitter(data_dir / DATABASE, now=now, monotonic=monotonic))
            try:
                server = WriterServer(data_dir, writer.submit)
            except BaseException:
                writer.close()
                raise
        except BaseException:
            lock.release()
            raise
        return cls(lock, writer, server)

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
            self._server.close()
            self._writer.close()
        finally:
            self._lock.release()


def migrate_directory(data_dir: Path, *, restored: bool = False) -> bool:
    """Create or upgrade the log of a directory that nobody owns; False where somebody does.  Blocks.

    `restored` gives the log a new incarnation: after a restore from a backup its positions mean other events.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = OwnerLock.try_take(data_dir)
    if lock is None:
        return False
    try:
        _prepare(data_dir / DATABASE)
        if restored:
            with closing(connect_writer(data_dir / DATABASE)) as connection:
                connection.execute("UPDATE log SET incarnation = ?", (os.urandom(16).hex(),))
    finally:
        lock.release()
    return True


def _prepare(path: Path) -> None:
    """Create or upgrade the log where that is needed.  Raises `StoreUnavailable` for a later version's."""
    _create_private(path)
    if _revision(path) == REVISION:
        return
    # Imported for this only: it is a sixth of what a host loads, and successors start under pressure.
    from alembic.util import CommandError

    from eventstore.sql.migrate import migrate_sqlite

    try:
        migrate_sqlite(path)
    except CommandError as error:
        raise StoreUnavailable(f"{path.parent} cannot be used: {error}") from error


def _revision(path: Path) -> str | None:
    """The newest migration that a database has seen; None for one that is empty."""
    with closing(sqlite3.connect(path)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if found is None else str(found[0])


def _create_private(path: Path) -> None:
    """SQLite would let others of the machine read what it creates."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
