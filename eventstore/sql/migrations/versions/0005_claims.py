"""Expired claims are cleared away last: where they came first, two writers could wait for each other."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_APPEND)


# Arrays beginning with a_ hold a value for each append, c_ for each claim, d_ for each document; the units
# that these belong to are numbers.  No stream and no claim is in two units.
_APPEND = """
CREATE OR REPLACE FUNCTION append_units(
    a_unit int[], a_stream_id bigint[], a_new boolean[], a_name text[],
    a_expected bigint[], a_epoch bigint[], a_version bigint[], a_chain bytea[],
    a_owner text[], a_state text[], a_attributes text[], a_category text[], a_tenant text[], a_parent text[],
    a_types text[], a_schema int[], a_digest bytea[], a_payload bytea[],
    a_salt bytea[], a_erase boolean[],
    c_unit int[], c_scope text[], c_key text[], c_fingerprint bytea[], c_stream text[], c_expires_at bigint[],
    d_unit int[], d_stream_id bigint[], d_kind text[], d_data bytea[],
    now_ms bigint,
    OUT lost int[], OUT a_position bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    ours_scope text[];
    ours_key text[];
    last bigint;
BEGIN
    -- Everybody locks in one order: heads by id, claims by key, then the end of the log.
    WITH heads AS MATERIALIZED (
        SELECT s.id, s.version, s.epoch FROM streams s
        WHERE s.id = ANY (a_stream_id) ORDER BY s.id FOR NO KEY UPDATE
    )
    SELECT coalesce(array_agg(DISTINCT a.unit), '{}') INTO lost
    FROM unnest(a_unit, a_stream_id, a_new, a_expected, a_epoch) AS a (unit, stream_id, new, expected, epoch)
    WHERE NOT a.new AND NOT EXISTS (
        SELECT 1 FROM heads h WHERE h.id = a.stream_id AND h.version = a.expected AND h.epoch = a.epoch
    );

    IF cardinality(c_unit) > 0 THEN
        WITH taken AS (
            INSERT INTO claims AS t (scope, key, fingerprint, stream, expires_at)
            SELECT c.scope, c.key, c.fingerprint, c.stream, c.expires_at
            FROM unnest(c_unit, c_scope, c_key, c_fingerprint, c_stream, c_expires_at)
                AS c (unit, scope, key, fingerprint, stream, expires_at)
            WHERE c.unit <> ALL (lost)
            ORDER BY c.scope, c.key
            ON CONFLICT (scope, key) DO UPDATE SET
                fingerprint = excluded.fingerprint, stream = excluded.stream, expires_at = excluded.expires_at
            WHERE t.expires_at <= now_ms
            RETURNING t.scope, t.key
        )
        SELECT array_agg(t.scope), array_agg(t.key) INTO ours_scope, ours_key FROM taken t;
        lost := lost || ARRAY(
            SELECT DISTINCT c.unit FROM unnest(c_unit, c_scope, c_key) AS c (unit, scope, key)
            WHERE c.unit <> ALL (lost) AND NOT EXISTS (
                SELECT 1 FROM unnest(ours_scope, ours_key) AS o (scope, key)
                WHERE o.scope = c.scope AND o.key = c.key
            )
        );
        -- Each new claim pays for a few that have expired, so that those are soon a small part of all.  These
        -- locks come in no order, so they come last and wait for nobody.
        WITH expired AS MATERIALIZED (
            SELECT e.scope, e.key FROM claims e WHERE e.expires_at <= now_ms LIMIT 16 FOR UPDATE SKIP LOCKED
        )
        DELETE FROM claims t USING expired e WHERE t.scope = e.scope AND t.key = e.key;
    END IF;

    IF NOT a_unit <@ lost THEN
        -- From here until its commit is seen by all, this is the only one that adds records: the next one
        -- finds the last position that will ever be below its own.
        PERFORM pg_advisory_xact_lock(8242002329779269220);
        SELECT coalesce(max(r.position), 0) INTO last FROM records r;
        IF true = ANY (a_new) THEN
            lost := lost || ARRAY(
                SELECT DISTINCT a.unit FROM unnest(a_unit, a_new, a_name) AS a (unit, new, name)
                WHERE a.new AND EXISTS (SELECT 1 FROM streams s WHERE s.name = a.name)
            );
        END IF;
    END IF;

    IF cardinality(lost) > 0 AND ours_key IS NOT NULL THEN
        DELETE FROM claims t
        USING unnest(c_unit, c_scope, c_key) AS c (unit, scope, key),
            unnest(ours_scope, ours_key) AS o (scope, key)
        WHERE c.unit = ANY (lost) AND o.scope = c.scope AND o.key = c.key
            AND t.scope = c.scope AND t.key = c.key;
    END IF;

    IF NOT a_unit <@ lost THEN
        IF lost = '{}' THEN
            a_position := ARRAY(SELECT * FROM generate_series(last + 1, last + cardinality(a_unit)));
        ELSE
            a_position := ARRAY(
                SELECT CASE WHEN a.wins THEN last + count(*) FILTER (WHERE a.wins) OVER (ORDER BY a.n) END
                FROM (
                    SELECT b.unit <> ALL (lost), b.n FROM unnest(a_unit) WITH ORDINALITY AS b (unit, n)
                ) AS a (wins, n)
                ORDER BY a.n
            );
        END IF;
        IF true = ANY (a_new) THEN
            INSERT INTO streams (id, name, version, epoch, owner, chain, category, tenant, state, parent,
                created, attributes)
            SELECT a.stream_id, a.name, a.version, a.epoch, a.owner, a.chain, a.category, a.tenant, a.state,
                a.parent, a.position, a.attributes
            FROM unnest(a_position, a_stream_id, a_new, a_name, a_version, a_epoch, a_owner, a_chain,
                a_category, a_tenant, a_state, a_parent, a_attributes)
                AS a (position, stream_id, new, name, version, epoch, owner, chain,
                    category, tenant, state, parent, attributes)
            WHERE a.new AND a.position IS NOT NULL;
        END IF;
        IF false = ANY (a_new) THEN
            UPDATE streams s SET version = a.version, chain = a.chain, owner = a.owner, state = a.state,
                attributes = coalesce(a.attributes, s.attributes)
            FROM unnest(a_position, a_stream_id, a_new, a_version, a_owner, a_chain, a_state, a_attributes)
                AS a (position, stream_id, new, version, owner, chain, state, attributes)
            WHERE s.id = a.stream_id AND NOT a.new AND a.position IS NOT NULL;
        END IF;
        IF true = ANY (a_new) OR true = ANY (a_erase) THEN
            INSERT INTO salts (stream_id, from_version, salt)
            SELECT a.stream_id, a.expected + 1, a.salt
            FROM unnest(a_position, a_stream_id, a_expected, a_salt)
                AS a (position, stream_id, expected, salt)
            WHERE a.salt IS NOT NULL AND a.position IS NOT NULL;
        END IF;
        INSERT INTO records (position, stream_id, first_version, types, schema, epoch, recorded_at, digest,
            chain)
        SELECT a.position, a.stream_id, a.expected + 1, a.types, a.schema, a.epoch, now_ms, a.digest, a.chain
        FROM unnest(a_position, a_stream_id, a_expected, a_types, a_schema, a_epoch, a_digest, a_chain)
            AS a (position, stream_id, expected, types, schema, epoch, digest, chain)
        WHERE a.position IS NOT NULL;
        INSERT INTO payloads (position, payload)
        SELECT a.position, a.payload FROM unnest(a_position, a_payload) AS a (position, payload)
        WHERE a.position IS NOT NULL;
        IF true = ANY (a_erase) THEN
            INSERT INTO erasures (stream_id, version)
            SELECT a.stream_id, a.expected + 1
            FROM unnest(a_position, a_stream_id, a_expected, a_erase)
                AS a (position, stream_id, expected, erase)
            WHERE a.erase AND a.position IS NOT NULL;
            DELETE FROM payloads p
            USING unnest(a_position, a_stream_id, a_expected, a_erase)
                AS a (position, stream_id, expected, erase), records r
            WHERE a.erase AND a.position IS NOT NULL AND r.stream_id = a.stream_id
                AND r.first_version <= a.expected AND p.position = r.position;
            DELETE FROM salts t
            USING unnest(a_position, a_stream_id, a_expected, a_erase)
                AS a (position, stream_id, expected, erase)
            WHERE a.erase AND a.position IS NOT NULL AND t.stream_id = a.stream_id
                AND t.from_version <= a.expected;
            DELETE FROM documents t
            USING unnest(a_position, a_stream_id, a_erase) AS a (position, stream_id, erase)
            WHERE a.erase AND a.position IS NOT NULL AND t.stream_id = a.stream_id;
        END IF;
    END IF;

    IF cardinality(d_unit) > 0 THEN
        DELETE FROM documents t
        USING unnest(d_unit, d_stream_id, d_kind, d_data) AS d (unit, stream_id, kind, data)
        WHERE d.data = '' AND d.unit <> ALL (lost) AND t.stream_id = d.stream_id AND t.kind = d.kind;
        INSERT INTO documents (stream_id, kind, data)
        SELECT d.stream_id, d.kind, d.data
        FROM unnest(d_unit, d_stream_id, d_kind, d_data) AS d (unit, stream_id, kind, data)
        WHERE d.data <> '' AND d.unit <> ALL (lost)
        ORDER BY d.stream_id, d.kind
        ON CONFLICT (stream_id, kind) DO UPDATE SET data = excluded.data;
    END IF;
END $$"""
