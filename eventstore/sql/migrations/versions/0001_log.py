"""The log: streams, records, payloads, and what lies beside them; append-only by triggers."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, Text, UniqueConstraint, text

revision = "0001"
down_revision = None

_BIG = BigInteger().with_variant(Integer, "sqlite")


def upgrade() -> None:
    _streams()
    _records()
    _beside()
    if op.get_bind().dialect.name == "sqlite":
        for trigger in _SQLITE_TRIGGERS:
            op.execute(trigger)


def _streams() -> None:
    op.create_table(
        "log",
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("incarnation", Text, nullable=False),
        Column("created_at", _BIG, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "streams",
        Column("id", _BIG, primary_key=True, autoincrement=False),
        Column("name", Text, nullable=False, unique=True),
        Column("version", _BIG, nullable=False),
        Column("epoch", _BIG, nullable=False),
        Column("owner", Text),
        Column("chain", LargeBinary, nullable=False),
        Column("category", Text, nullable=False),
        Column("tenant", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("parent", Text),
        Column("created", _BIG, nullable=False),
        Column("attributes", Text, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("streams_owner", "streams", ["owner"], sqlite_where=text("owner IS NOT NULL"))
    op.create_index("streams_state", "streams", ["state", "category", "tenant", "created"])
    op.create_index("streams_created", "streams", ["category", "created"])


def _records() -> None:
    op.create_table(
        "records",
        Column("position", _BIG, primary_key=True, autoincrement=False),
        Column("stream_id", _BIG, nullable=False),
        Column("first_version", _BIG, nullable=False),
        Column("types", Text, nullable=False),
        Column("schema", Integer, nullable=False),
        Column("epoch", _BIG, nullable=False),
        Column("recorded_at", _BIG, nullable=False),
        Column("digest", LargeBinary, nullable=False),
        Column("chain", LargeBinary, nullable=False),
        UniqueConstraint("stream_id", "first_version"),
        sqlite_strict=True,
    )
    op.create_table(
        "payloads",
        Column("position", _BIG, primary_key=True, autoincrement=False),
        Column("payload", LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "salts",
        Column("stream_id", _BIG, primary_key=True, autoincrement=False),
        Column("from_version", _BIG, primary_key=True, autoincrement=False),
        Column("salt", LargeBinary, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "erasures",
        Column("stream_id", _BIG, primary_key=True, autoincrement=False),
        Column("version", _BIG, primary_key=True, autoincrement=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _beside() -> None:
    op.create_table(
        "documents",
        Column("stream_id", _BIG, primary_key=True, autoincrement=False),
        Column("kind", Text, primary_key=True),
        Column("data", LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "claims",
        Column("scope", Text, primary_key=True),
        Column("key", Text, primary_key=True),
        Column("fingerprint", LargeBinary, nullable=False),
        Column("stream", Text, nullable=False),
        Column("expires_at", _BIG),
        sqlite_strict=True,
    )
    op.create_table(
        "leases",
        Column("holder", Text, primary_key=True),
        Column("ttl_ms", _BIG, nullable=False),
        Column("buried", Boolean().with_variant(Integer, "sqlite"), nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "cursors",
        Column("name", Text, primary_key=True),
        Column("position", _BIG, nullable=False),
        sqlite_strict=True,
    )


def _refuse(name: str, occasion: str, reason: str, when: str = "1") -> str:
    refusal = f"SELECT RAISE(ABORT, 'append-only: {reason}')"
    return f"CREATE TRIGGER {name} BEFORE {occasion} WHEN {when} BEGIN {refusal}; END"


# An INSERT OR REPLACE deletes without a delete trigger, so the insert triggers refuse what would replace.
_SQLITE_TRIGGERS = (
    _refuse("records_no_update", "UPDATE ON records", "a record never changes"),
    _refuse("records_no_delete", "DELETE ON records", "a record is never deleted"),
    _refuse(
        "records_dense",
        "INSERT ON records",
        "positions and versions only go on",
        "NEW.position <> COALESCE((SELECT max(position) FROM records), 0) + 1"
        " OR EXISTS (SELECT 1 FROM records"
        " WHERE stream_id = NEW.stream_id AND first_version >= NEW.first_version)",
    ),
    _refuse("payloads_no_update", "UPDATE ON payloads", "a payload never changes"),
    _refuse(
        "payloads_no_replace",
        "INSERT ON payloads",
        "a payload is never replaced",
        "EXISTS (SELECT 1 FROM payloads WHERE position = NEW.position)",
    ),
    _refuse(
        "payloads_no_delete",
        "DELETE ON payloads",
        "only an erasure with its tombstone deletes payloads",
        "NOT EXISTS (SELECT 1 FROM records r JOIN erasures e ON e.stream_id = r.stream_id"
        " AND e.version > r.first_version WHERE r.position = OLD.position)",
    ),
    _refuse("salts_no_update", "UPDATE ON salts", "a salt never changes"),
    _refuse(
        "salts_no_replace",
        "INSERT ON salts",
        "a salt is never replaced",
        "EXISTS (SELECT 1 FROM salts WHERE stream_id = NEW.stream_id AND from_version = NEW.from_version)",
    ),
    _refuse(
        "salts_no_delete",
        "DELETE ON salts",
        "only an erasure with its tombstone deletes salts",
        "NOT EXISTS (SELECT 1 FROM erasures e WHERE e.stream_id = OLD.stream_id"
        " AND e.version > OLD.from_version)",
    ),
    _refuse("erasures_no_update", "UPDATE ON erasures", "an erasure never changes"),
    _refuse("erasures_no_delete", "DELETE ON erasures", "an erasure is never forgotten"),
    _refuse(
        "erasures_tombstone",
        "INSERT ON erasures",
        "an erasure names its tombstone",
        "NOT EXISTS (SELECT 1 FROM records WHERE stream_id = NEW.stream_id"
        " AND first_version = NEW.version AND types = '$erased')",
    ),
)
