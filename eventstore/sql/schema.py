"""The tables of the log, on Postgres with a little more than on SQLite.  See docs/adr/0001-log-format.md.

What creates them are the migrations; a test compares both.  Nothing here knows what a stream is about.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

REVISION: Final = "0006"
"""The newest migration: what leads to these tables."""

METADATA: Final = MetaData()

# SQLite's row number is an INTEGER of 64 bits; Postgres needs the word BIGINT for the same.
_Big: Final = BigInteger().with_variant(Integer, "sqlite")

LOG: Final = Table(
    "log",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),  # Always 1.
    Column("incarnation", Text, nullable=False),
    Column("created_at", _Big, nullable=False),
    sqlite_strict=True,
)

STREAMS: Final = Table(
    "streams",
    METADATA,
    Column("id", _Big, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False, unique=True),
    Column("version", _Big, nullable=False),
    Column("epoch", _Big, nullable=False),
    Column("owner", Text),
    Column("chain", LargeBinary, nullable=False),
    Column("category", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("parent", Text),
    Column("created", _Big, nullable=False),
    Column("attributes", Text, nullable=False),  # A JSON object of strings.
    Column("sealed", Integer, nullable=False, server_default=text("0")),  # 1 once its records lie in blocks.
    sqlite_strict=True,
)
_OWNED: Final = STREAMS.c.owner.isnot(None)
Index("streams_owner", STREAMS.c.owner, sqlite_where=_OWNED, postgresql_where=_OWNED)
# Few streams stand in the states that are asked for without a category: what waits, what runs.  Of 200,000
# finished ones this finds them in 0.2 ms; with the category in front it took 300.
Index("streams_state", STREAMS.c.state, STREAMS.c.category, STREAMS.c.tenant, STREAMS.c.created)
Index("streams_created", STREAMS.c.category, STREAMS.c.created)
Index("streams_tenant", STREAMS.c.tenant, STREAMS.c.created)
UNSEALED: Final = text("sealed = 0")
Index(
    "streams_unsealed",
    STREAMS.c.category,
    STREAMS.c.created,
    sqlite_where=UNSEALED,
    postgresql_where=UNSEALED,
)

RECORDS: Final = Table(
    "records",
    METADATA,
    Column("position", _Big, primary_key=True, autoincrement=False),
    Column("stream_id", _Big, nullable=False),
    Column("first_version", _Big, nullable=False),
    Column("types", Text, nullable=False),
    Column("schema", Integer, nullable=False),
    Column("epoch", _Big, nullable=False),
    Column("recorded_at", _Big, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    UniqueConstraint("stream_id", "first_version"),
    sqlite_strict=True,
)

PAYLOADS: Final = Table(
    "payloads",
    METADATA,
    Column("position", _Big, primary_key=True, autoincrement=False),
    Column("payload", LargeBinary, nullable=False),
    sqlite_strict=True,
)

BLOCKS: Final = Table(
    "blocks",
    METADATA,
    Column("stream_id", _Big, primary_key=True, autoincrement=False),
    Column("first_version", _Big, primary_key=True, autoincrement=False),
    Column("last_version", _Big, nullable=False),
    Column("first_position", _Big, nullable=False),
    Column("last_position", _Big, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
    # Those of the stream, as one row takes less room than three: the salt in each of its blocks, the packed
    # documents in its first one.  None once it is erased, and where it was sealed before they lay here.
    Column("salt", LargeBinary),
    Column("documents", LargeBinary),
    sqlite_strict=True,
)
Index("blocks_position", BLOCKS.c.first_position, BLOCKS.c.last_position)

SALTS: Final = Table(
    "salts",
    METADATA,
    Column("stream_id", _Big, primary_key=True, autoincrement=False),
    Column("from_version", _Big, primary_key=True, autoincrement=False),
    Column("salt", LargeBinary, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

ERASURES: Final = Table(
    "erasures",
    METADATA,
    Column("stream_id", _Big, primary_key=True, autoincrement=False),
    Column("version", _Big, primary_key=True, autoincrement=False),  # The tombstone's.
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

DOCUMENTS: Final = Table(
    "documents",
    METADATA,
    Column("stream_id", _Big, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    sqlite_strict=True,
)

CLAIMS: Final = Table(
    "claims",
    METADATA,
    Column("scope", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("stream", Text, nullable=False),
    Column("expires_at", _Big),
    sqlite_strict=True,
)

LEASES: Final = Table(
    "leases",
    METADATA,
    Column("holder", Text, primary_key=True),
    Column("ttl_ms", _Big, nullable=False),
    Column("buried", Boolean().with_variant(Integer, "sqlite"), nullable=False),
    sqlite_strict=True,
)

CURSORS: Final = Table(
    "cursors",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("position", _Big, nullable=False),
    sqlite_strict=True,
)

POSTGRES: Final = MetaData()
for _table in METADATA.tables.values():
    _table.to_metadata(POSTGRES)
# SQLite's writer keeps deadlines in its memory; here every host reads the server's clock.
Index(
    "claims_expire",
    POSTGRES.tables["claims"].c.expires_at,
    postgresql_where=POSTGRES.tables["claims"].c.expires_at.isnot(None),
)
POSTGRES.tables["leases"].append_column(Column("renewed_at", DateTime(timezone=True)))
