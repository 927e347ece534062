"""How the log's SQLite database is opened for writing: durable by every setting, each read back."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from eventstore.errors import UnsafeStore

DATABASE: Final = "log.db"

_NEEDED: Final = {
    "journal_mode": "wal",
    "synchronous": "2",  # FULL: without it a power cut loses acknowledged commits.
    "secure_delete": "1",  # What is erased is overwritten, not just unlinked.
}
_WANTED: Final = {
    "busy_timeout": "2000",  # Nobody else writes, but a reader may stand in a checkpoint's way.
    "wal_autocheckpoint": "2000",  # 8 MiB: rarely enough to be cheap, small enough to start from quickly.
    "journal_size_limit": "67108864",
    "cache_size": "-16384",  # 16 MiB: the index pages that appends touch.
    "temp_store": "MEMORY",  # Nothing that was written may lie in a forgotten temporary file.
}
_TRUNCATE_PATIENCE_MS: Final = 100
"""A reader's page may be in the way this long; commits wait meanwhile."""


def connect_writer(path: Path) -> sqlite3.Connection:
    """The one writing connection.  Raises `UnsafeStore` unless the database says that it is durable."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=2.0
    )
    try:
        for name, value in (_WANTED | _NEEDED).items():
            connection.execute(f"PRAGMA {name} = {value}").fetchall()
        for name, value in _NEEDED.items():
            (found,) = connection.execute(f"PRAGMA {name}").fetchone()
            if str(found) != value:
                raise UnsafeStore(f"SQLite's {name}", str(found), value)
    except BaseException:
        connection.close()
        raise
    return connection


def truncate_wal(connection: sqlite3.Connection) -> bool:
    """Copy the write-ahead log into the database and empty it.  False while a reader is in the way."""
    connection.execute(f"PRAGMA busy_timeout = {_TRUNCATE_PATIENCE_MS}").fetchall()
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {_WANTED['busy_timeout']}").fetchall()
    return bool(busy == 0)
