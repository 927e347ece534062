"""A sealed stream's salt and documents lie in the row of its block: one row where there were three."""

from alembic import op
from sqlalchemy import Column, LargeBinary

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # None where the stream was sealed before this, or is erased.
    op.add_column("blocks", Column("salt", LargeBinary))
    op.add_column("blocks", Column("documents", LargeBinary))
    statements = _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRES
    for statement in statements:
        op.execute(statement)


_SQLITE = (
    "DROP TRIGGER salts_no_delete",
    """
CREATE TRIGGER salts_no_delete BEFORE DELETE ON salts
WHEN NOT EXISTS (
    SELECT 1 FROM erasures e WHERE e.stream_id = OLD.stream_id AND e.version > OLD.from_version
) AND NOT EXISTS (
    SELECT 1 FROM blocks b WHERE b.stream_id = OLD.stream_id AND b.salt = OLD.salt
) BEGIN
    SELECT RAISE(ABORT, 'append-only: only an erasure with its tombstone or a seal deletes salts');
END""",
)

_POSTGRES = (
    "ALTER TABLE blocks ALTER COLUMN documents SET STORAGE EXTERNAL",  # They are compressed already.
    """
CREATE OR REPLACE FUNCTION salts_only_erased() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT 1 FROM erasures e WHERE e.stream_id = OLD.stream_id AND e.version > OLD.from_version
            AND e.xmin = pg_current_xact_id()::xid
    ) AND NOT EXISTS (
        SELECT 1 FROM blocks b WHERE b.stream_id = OLD.stream_id AND b.salt = OLD.salt
            AND b.xmin = pg_current_xact_id()::xid
    ) THEN
        RAISE EXCEPTION 'append-only: only an erasure with its tombstone, or a seal, deletes salts'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN OLD;
END $$""",
    """
CREATE OR REPLACE FUNCTION append_blocks(
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

    UPDATE blocks t SET data = b.data, salt = NULL, documents = NULL
    FROM unnest(b_unit, b_stream_id, b_first_version, b_data, b_bare)
        AS b (unit, stream_id, first_version, data, bare)
    WHERE b.bare AND b.unit <> ALL (lost) AND t.stream_id = b.stream_id AND t.first_version = b.first_version;
    INSERT INTO blocks (stream_id, first_version, last_version, first_position, last_position, chain, data,
        salt, documents)
    SELECT b.stream_id, b.first_version, b.last_version, b.first_position, b.last_position, b.chain, b.data,
        (SELECT t.salt FROM salts t WHERE t.stream_id = b.stream_id AND t.from_version <= b.last_version
         ORDER BY t.from_version DESC LIMIT 1),
        (SELECT d.data FROM documents d
         WHERE b.first_version = 0 AND d.stream_id = b.stream_id AND d.kind = '$')
    FROM unnest(b_unit, b_stream_id, b_first_version, b_last_version, b_first_position, b_last_position,
        b_chain, b_data, b_bare)
        AS b (unit, stream_id, first_version, last_version, first_position, last_position, chain, data, bare)
    WHERE NOT b.bare AND b.unit <> ALL (lost);
    DELETE FROM salts t USING unnest(s_unit, s_stream_id) AS s (unit, stream_id)
    WHERE s.unit <> ALL (lost) AND t.stream_id = s.stream_id;
    DELETE FROM documents t USING unnest(s_unit, s_stream_id) AS s (unit, stream_id)
    WHERE s.unit <> ALL (lost) AND t.stream_id = s.stream_id AND t.kind = '$';
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
