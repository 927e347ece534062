"""Sealed streams: blocks in the place of records, and triggers that let nothing else take it."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, text

revision = "0004"
down_revision = "0003"

_BIG = BigInteger().with_variant(Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "blocks",
        Column("stream_id", _BIG, primary_key=True, autoincrement=False),
        Column("first_version", _BIG, primary_key=True, autoincrement=False),
        Column("last_version", _BIG, nullable=False),
        Column("first_position", _BIG, nullable=False),
        Column("last_position", _BIG, nullable=False),
        Column("chain", LargeBinary, nullable=False),
        Column("data", LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("blocks_position", "blocks", ["first_position", "last_position"])
    op.add_column("streams", Column("sealed", Integer, nullable=False, server_default=text("0")))
    # What is still to be sealed: what runs and what ended lately, whatever lies behind it.
    unsealed = text("sealed = 0")
    op.create_index(
        "streams_unsealed",
        "streams",
        ["category", "created"],
        sqlite_where=unsealed,
        postgresql_where=unsealed,
    )
    if op.get_bind().dialect.name == "sqlite":
        for statement in _SQLITE:
            op.execute(statement)
    else:
        for statement in _POSTGRES:
            op.execute(statement)


def _refuse(name: str, occasion: str, reason: str, when: str = "1") -> str:
    refusal = f"SELECT RAISE(ABORT, 'append-only: {reason}')"
    return f"CREATE TRIGGER {name} BEFORE {occasion} WHEN {when} BEGIN {refusal}; END"


def _place(row: str) -> str:
    """All of a block but its bytes."""
    names = ("stream_id", "first_version", "last_version", "first_position", "last_position", "chain")
    return ", ".join(f"{row}.{name}" for name in names)


_HELD = (
    "SELECT 1 FROM records r JOIN blocks b ON b.stream_id = r.stream_id"
    " AND r.first_version BETWEEN b.first_version AND b.last_version WHERE r.position = OLD.position"
)
_SQLITE = (
    "DROP TRIGGER records_no_delete",
    _refuse(
        "records_no_delete",
        "DELETE ON records",
        "only a seal, whose block holds it, takes a record away",
        f"NOT EXISTS ({_HELD})",
    ),
    "DROP TRIGGER payloads_no_delete",
    _refuse(
        "payloads_no_delete",
        "DELETE ON payloads",
        "only an erasure with its tombstone or a seal deletes payloads",
        "NOT EXISTS (SELECT 1 FROM records r JOIN erasures e ON e.stream_id = r.stream_id"
        f" AND e.version > r.first_version WHERE r.position = OLD.position) AND NOT EXISTS ({_HELD})",
    ),
    _refuse("blocks_no_delete", "DELETE ON blocks", "a block is never deleted"),
    _refuse(
        "blocks_no_update",
        "UPDATE ON blocks",
        "only an erasure with its tombstone changes a block",
        f"({_place('NEW')}) <> ({_place('OLD')}) OR NOT EXISTS"
        " (SELECT 1 FROM erasures e WHERE e.stream_id = OLD.stream_id AND e.version > OLD.first_version)",
    ),
    _refuse(
        "blocks_sealed",
        "INSERT ON blocks",
        "a block comes with the event that names it and with the records that it holds",
        "NOT EXISTS (SELECT 1 FROM streams s JOIN records r ON r.stream_id = s.id"
        " AND r.first_version = s.version WHERE s.name = '$seals' AND r.position > NEW.last_position)"
        " OR NOT EXISTS (SELECT 1 FROM records r WHERE r.position = NEW.last_position"
        " AND r.stream_id = NEW.stream_id AND r.chain = NEW.chain)",
    ),
)

# As for erasures: what permits a deletion counts within its own transaction only.
_POSTGRES = (
    "ALTER TABLE blocks ALTER COLUMN data SET STORAGE EXTERNAL",  # It is compressed already.
    """
CREATE FUNCTION held_by_new_block(p_position bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT 1 FROM records r JOIN blocks b ON b.stream_id = r.stream_id
            AND r.first_version BETWEEN b.first_version AND b.last_version
        WHERE r.position = p_position AND b.xmin = pg_current_xact_id()::xid
    )
$$""",
    """
CREATE FUNCTION records_only_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT held_by_new_block(OLD.position) THEN
        RAISE EXCEPTION 'append-only: only a seal, whose block holds it, takes a record away'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN OLD;
END $$""",
    "DROP TRIGGER records_no_delete ON records",
    """
CREATE TRIGGER records_no_delete BEFORE DELETE ON records
    FOR EACH ROW EXECUTE FUNCTION records_only_sealed()""",
    """
CREATE OR REPLACE FUNCTION payloads_only_erased() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT held_by_new_block(OLD.position) AND NOT EXISTS (
        SELECT 1 FROM erasures e JOIN records r ON e.stream_id = r.stream_id AND e.version > r.first_version
        WHERE r.position = OLD.position AND e.xmin = pg_current_xact_id()::xid
    ) THEN
        RAISE EXCEPTION 'append-only: only an erasure with its tombstone, or a seal, deletes payloads'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN OLD;
END $$""",
    f"""
CREATE FUNCTION blocks_only_erased() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF ({_place("NEW")}) <> ({_place("OLD")})
        OR NOT EXISTS (
            SELECT 1 FROM erasures e WHERE e.stream_id = OLD.stream_id AND e.version > OLD.first_version
                AND e.xmin = pg_current_xact_id()::xid
        )
    THEN
        RAISE EXCEPTION 'append-only: only an erasure with its tombstone changes a block'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$""",
    """
CREATE TRIGGER blocks_no_update BEFORE UPDATE ON blocks
    FOR EACH ROW EXECUTE FUNCTION blocks_only_erased()""",
    """
CREATE TRIGGER blocks_no_delete BEFORE DELETE ON blocks
    FOR EACH ROW EXECUTE FUNCTION refuse('a block is never deleted')""",
    """
CREATE TRIGGER blocks_no_truncate BEFORE TRUNCATE ON blocks
    FOR EACH STATEMENT EXECUTE FUNCTION refuse('the log is never emptied')""",
    """
CREATE FUNCTION blocks_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM streams s JOIN records r ON r.stream_id = s.id AND r.first_version = s.version
        WHERE s.name = '$seals' AND r.xmin = pg_current_xact_id()::xid
    ) OR NOT EXISTS (
        SELECT 1 FROM records r WHERE r.position = NEW.last_position AND r.stream_id = NEW.stream_id
            AND r.chain = NEW.chain
    ) THEN
        RAISE EXCEPTION
            'append-only: a block comes with the event that names it and with the records that it holds'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$""",
    """
CREATE TRIGGER blocks_sealed BEFORE INSERT ON blocks
    FOR EACH ROW EXECUTE FUNCTION blocks_sealed()""",
    # The log's busiest tables lose what they gained: their room is needed again soon.
    *(
        f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.05)"
        for table in ("records", "payloads", "streams")
    ),
    # `append_units` for units with blocks, which are few.  s_ is what is sealed, b_ the blocks.
    """
CREATE FUNCTION append_blocks(
    a_unit int[], a_stream_id bigint[], a_new boolean[], a_name text[],
    a_expected bigint[], a_epoch bigint[], a_version bigint[], a_chain bytea[],
    a_owner text[], a_state text[], a_attributes text[], a_category text[], a_tenant text[], a_parent text[],
    a_types text[], a_schema int[], a_digest bytea[], a_payload bytea[],
    a_salt bytea[], a_erase boolean[],
    c_unit int[], c_scope text[], c_key text[], c_fingerprint bytea[], c_stream text[], c_expires_at bigint[],
    d_unit int[], d_stream_id bigint[], d_kind text[], d_data bytea[],
    now_ms bigint,
    s_unit int[], s_stream_id bigint[], s_version bigint[], s_epoch bigint[],
    b_unit int[], b_stream_id bigint[], b_first_version bigint[], b_last_version bigint[],
    b_first_position bigint[], b_last_position bigint[], b_chain bytea[], b_data bytea[], b_bare boolean[],
    OUT lost int[], OUT a_position bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    moved boolean;
BEGIN
    WITH heads AS MATERIALIZED (
        SELECT s.id, s.version, s.epoch FROM streams s
        WHERE s.id = ANY (a_stream_id || s_stream_id) ORDER BY s.id FOR NO KEY UPDATE
    )
    SELECT count(*) <> cardinality(s_stream_id) INTO moved
    FROM unnest(s_stream_id, s_version, s_epoch) AS w (stream_id, version, epoch)
    JOIN heads h ON h.id = w.stream_id AND h.version = w.version AND h.epoch = w.epoch;
    IF moved THEN
        -- All are looked at anew: the guilty one learns why, the others come again.
        lost := a_unit || c_unit || d_unit;
        RETURN;
    END IF;

    SELECT u.lost, u.a_position INTO lost, a_position FROM append_units(
        a_unit, a_stream_id, a_new, a_name, a_expected, a_epoch, a_version, a_chain, a_owner, a_state,
        a_attributes, a_category, a_tenant, a_parent, a_types, a_schema, a_digest, a_payload, a_salt, a_erase,
        c_unit, c_scope, c_key, c_fingerprint, c_stream, c_expires_at, d_unit, d_stream_id, d_kind, d_data,
        now_ms) AS u;

    UPDATE blocks t SET data = b.data
    FROM unnest(b_unit, b_stream_id, b_first_version, b_data, b_bare)
        AS b (unit, stream_id, first_version, data, bare)
    WHERE b.bare AND b.unit <> ALL (lost) AND t.stream_id = b.stream_id AND t.first_version = b.first_version;
    INSERT INTO blocks (stream_id, first_version, last_version, first_position, last_position, chain, data)
    SELECT b.stream_id, b.first_version, b.last_version, b.first_position, b.last_position, b.chain, b.data
    FROM unnest(b_unit, b_stream_id, b_first_version, b_last_version, b_first_position, b_last_position,
        b_chain, b_data, b_bare)
        AS b (unit, stream_id, first_version, last_version, first_position, last_position, chain, data, bare)
    WHERE NOT b.bare AND b.unit <> ALL (lost);
    DELETE FROM payloads p
    USING unnest(s_unit, s_stream_id, s_version) AS s (unit, stream_id, version), records r
    WHERE s.unit <> ALL (lost) AND r.stream_id = s.stream_id AND r.first_version <= s.version
        AND p.position = r.position;
    DELETE FROM records r
    USING unnest(s_unit, s_stream_id, s_version) AS s (unit, stream_id, version)
    WHERE s.unit <> ALL (lost) AND r.stream_id = s.stream_id AND r.first_version <= s.version;
    UPDATE streams t SET epoch = t.epoch + 1, sealed = 1
    FROM unnest(s_unit, s_stream_id) AS s (unit, stream_id)
    WHERE s.unit <> ALL (lost) AND t.id = s.stream_id;
END $$""",
)
