"""The log that a cluster's configuration names, opened for writing or for reading only."""

from __future__ import annotations

from pathlib import Path

from actors.config import ClusterConfig
from eventstore.sql.reader import SqliteLogReader
from eventstore.sql.sqlite import SqliteEventStore


class UnsupportedLog(Exception):
    """The configuration names a log that this version cannot use."""


def open_store(config: ClusterConfig, *, may_own: bool) -> SqliteEventStore:
    """The log for writing; with `may_own` this process may become the one that writes the database.

    Nothing is opened before the first use.
    """
    return SqliteEventStore(_data_dir(config), may_own=may_own)


def open_reader(config: ClusterConfig) -> SqliteLogReader:
    """The log for reading only."""
    return SqliteLogReader(_data_dir(config))


def _data_dir(config: ClusterConfig) -> Path:
    if config.data_dir is None:
        raise UnsupportedLog(
            "the log must be sqlite:///<directory>: Postgres is not supported by this version"
        )
    return config.data_dir
