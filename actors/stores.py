"""The log that a cluster's configuration names, opened for writing or for reading only.

Each kind imports much, and everybody waits while a host starts in the place of a dead one: only what is used
is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.config import ClusterConfig
from eventstore.sql.log_reader import SqlLogReader

if TYPE_CHECKING:
    from eventstore.sql.postgres import PostgresEventStore
    from eventstore.sql.sqlite import SqliteEventStore


def open_store(config: ClusterConfig, *, may_own: bool) -> SqliteEventStore | PostgresEventStore:
    """The log for writing; with `may_own` this process may become the one that writes a SQLite database.

    Nothing is opened before the first use.
    """
    if config.data_dir is None:
        from eventstore.sql.postgres import PostgresEventStore

        return PostgresEventStore(config.log_url)
    from eventstore.sql.sqlite import SqliteEventStore

    return SqliteEventStore(config.data_dir, may_own=may_own)


def open_reader(config: ClusterConfig) -> SqlLogReader:
    """The log for reading only."""
    if config.data_dir is None:
        from eventstore.sql.postgres_reader import PostgresLogReader

        return PostgresLogReader(config.log_url)
    from eventstore.sql.reader import SqliteLogReader

    return SqliteLogReader(config.data_dir)
