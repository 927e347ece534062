"""The SQL that the SQLite writer and reader run, and what its rows mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from eventstore.events import PACKED, Head
from eventstore.sql.rows import BLOCK_COLUMNS, HEAD_COLUMNS, dump_attributes

NAME_LOG: Final = "INSERT OR IGNORE INTO log (id, incarnation, created_at) VALUES (1, ?, ?)"
LAST_POSITION: Final = "SELECT COALESCE(max(position), 0) FROM records"
LAST_STREAM: Final = "SELECT COALESCE(max(id), 0) FROM streams"
LEASES: Final = "SELECT holder, ttl_ms, buried FROM leases ORDER BY rowid"
OWNERS: Final = "SELECT DISTINCT owner FROM streams WHERE owner IS NOT NULL"
CLAIM: Final = "SELECT scope, key, fingerprint, stream, expires_at FROM claims WHERE scope = ? AND key = ?"
HEADS_BY_NAME: Final = f"""
SELECT id, COALESCE((SELECT salt FROM salts WHERE stream_id = id ORDER BY from_version DESC LIMIT 1), x''),
    {HEAD_COLUMNS}
FROM streams WHERE name IN (SELECT value FROM json_each(?))"""

SAVE_LEASE: Final = (
    "INSERT INTO leases (holder, ttl_ms, buried) VALUES (?, ?, 0)"
    " ON CONFLICT (holder) DO UPDATE SET ttl_ms = excluded.ttl_ms"
)
BURY_LEASE: Final = (
    "INSERT INTO leases (holder, ttl_ms, buried) VALUES (?, 0, 1)"
    " ON CONFLICT (holder) DO UPDATE SET buried = 1"
)
FORGET_LEASE: Final = "DELETE FROM leases WHERE holder = ?"
SAVE_CURSOR: Final = (
    "INSERT INTO cursors (name, position) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET position = max(position, excluded.position)"
)
SAVE_CLAIM: Final = (
    "INSERT INTO claims (scope, key, fingerprint, stream, expires_at) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (scope, key) DO UPDATE SET"
    " fingerprint = excluded.fingerprint, stream = excluded.stream, expires_at = excluded.expires_at"
)
CLAIMS_AFTER: Final = "SELECT rowid, expires_at FROM claims WHERE rowid > ? ORDER BY rowid LIMIT ?"
FORGET_CLAIM: Final = "DELETE FROM claims WHERE rowid = ? AND expires_at <= ?"
SAVE_DOCUMENT: Final = (
    "INSERT INTO documents (stream_id, kind, data) VALUES (?, ?, ?)"
    " ON CONFLICT (stream_id, kind) DO UPDATE SET data = excluded.data"
)
DELETE_DOCUMENT: Final = "DELETE FROM documents WHERE stream_id = ? AND kind = ?"

ERASE: Final = (
    "INSERT INTO erasures (stream_id, version) VALUES (?1, ?2)",
    "DELETE FROM payloads WHERE position IN"
    " (SELECT position FROM records WHERE stream_id = ?1 AND first_version < ?2)",
    "DELETE FROM salts WHERE stream_id = ?1 AND from_version < ?2",
    "DELETE FROM documents WHERE stream_id = ?1 AND ?2 > 0",
)
"""With (stream id, version of the tombstone); the first permits the others, as the triggers demand."""


BLOCKS_OF: Final = (
    f"SELECT {BLOCK_COLUMNS} FROM blocks b JOIN streams s ON s.id = b.stream_id WHERE b.stream_id = ?"
)
BARE_BLOCK: Final = (
    "UPDATE blocks SET data = ?, salt = NULL, documents = NULL WHERE stream_id = ? AND first_version = ?"
)
SAVE_BLOCK: Final = (
    "INSERT INTO blocks"
    " (stream_id, first_version, last_version, first_position, last_position, chain, data, salt, documents)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7,"
    " (SELECT salt FROM salts WHERE stream_id = ?1 AND from_version <= ?3"
    " ORDER BY from_version DESC LIMIT 1),"
    f" (SELECT data FROM documents WHERE ?2 = 0 AND stream_id = ?1 AND kind = '{PACKED}'))"
)
SEAL: Final = (
    "DELETE FROM salts WHERE stream_id = ?1 AND from_version <= ?2",
    f"DELETE FROM documents WHERE stream_id = ?1 AND kind = '{PACKED}' AND ?2 >= 0",
    "DELETE FROM payloads WHERE position IN"
    " (SELECT position FROM records WHERE stream_id = ?1 AND first_version <= ?2)",
    "DELETE FROM records WHERE stream_id = ?1 AND first_version <= ?2",
    "UPDATE streams SET sealed = 1 WHERE id = ?1 AND version = ?2",
)
"""With (stream id, version of its last event), once its blocks are saved."""


class Many(NamedTuple):
    """A statement for many rows.

    Each step lets go of the interpreter and must win it back: one step for many rows is what is fast.
    """

    start: str
    row: str
    end: str = ""
    single: str = ""
    """The text for one row, where a shorter one exists."""


INSERT_STREAMS: Final = Many(
    "INSERT INTO streams (id, name, version, epoch, owner, chain, category, tenant, state, parent, created,"
    " attributes) VALUES ",
    "(?,?,?,?,?,?,?,?,?,?,?,?)",
)
INSERT_SALTS: Final = Many("INSERT INTO salts (stream_id, from_version, salt) VALUES ", "(?,?,?)")
INSERT_RECORDS: Final = Many(
    "INSERT INTO records"
    " (position, stream_id, first_version, types, schema, epoch, recorded_at, digest, chain) VALUES ",
    "(?,?,?,?,?,?,?,?,?)",
)
INSERT_PAYLOADS: Final = Many("INSERT INTO payloads (position, payload) VALUES ", "(?,?)")

_WHERE_STANDS: Final = (
    ") AS v WHERE streams.id = v.column1 AND streams.version = v.column2 AND streams.epoch = v.column3"
)
MOVE_HEADS: Final = Many(
    "UPDATE streams SET version = v.column4, chain = v.column5 FROM (VALUES ",
    "(?,?,?,?,?)",
    _WHERE_STANDS,
    "UPDATE streams SET version = ?4, chain = ?5 WHERE id = ?1 AND version = ?2 AND epoch = ?3",
)
CHANGE_HEADS: Final = Many(
    "UPDATE streams SET version = v.column4, chain = v.column5, epoch = v.column6, owner = v.column7,"
    " state = v.column8, attributes = v.column9 FROM (VALUES ",
    "(?,?,?,?,?,?,?,?,?)",
    _WHERE_STANDS,
)

_ROWS_MAX: Final = 64


def insert(connection: sqlite3.Connection, many: Many, rows: Sequence[tuple[object, ...]]) -> None:
    """Run a statement for all rows."""
    update(connection, many, rows)


def update(connection: sqlite3.Connection, many: Many, rows: Sequence[tuple[object, ...]]) -> int:
    """Run a statement for all rows and say how many it touched."""
    touched = at = 0
    while at < len(rows):
        # Powers of two: few different texts, so that the driver keeps them all prepared.
        size = min(_ROWS_MAX, 1 << (len(rows) - at).bit_length() - 1)
        parameters = [value for row in rows[at : at + size] for value in row]
        touched += connection.execute(_text(many, size), parameters).rowcount
        at += size
    return touched


def _text(many: Many, size: int) -> str:
    if (found := _TEXTS.get((many.start, size))) is None:
        found = (
            many.single if size == 1 and many.single else many.start + ",".join([many.row] * size) + many.end
        )
        _TEXTS[many.start, size] = found
    return found


_TEXTS: Final[dict[tuple[str, int], str]] = {}


def row_of(stream_id: int, head: Head) -> tuple[object, ...]:
    """A new row of streams."""
    return (
        stream_id,
        head.stream,
        head.version,
        head.epoch,
        head.owner,
        head.chain,
        head.category,
        head.tenant,
        head.state,
        head.parent,
        head.created,
        dump_attributes(head.attributes),
    )
