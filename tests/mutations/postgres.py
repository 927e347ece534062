"""The mechanisms of the log in Postgres, and which tests must notice when one is gone."""

from __future__ import annotations

from typing import Final

from tests.mutations.mutation import Mutation

_FAULTS: Final = "tests/integration/test_postgres_faults.py"
_STORE: Final = "tests/integration/test_postgres_store.py"
_SCHEMA: Final = "tests/integration/test_postgres_schema.py"
_POSITIONS: Final = "tests/integration/test_postgres_positions.py"
_RIVALS: Final = (
    f"{_STORE}::test_what_a_rival_did_is_noticed",
    f"{_STORE}::test_rivals_at_once_never_harm_the_innocent",
)

MIGRATION: Final = "eventstore/sql/migrations/versions/0005_claims.py"
SEALING: Final = "eventstore/sql/migrations/versions/0004_sealing.py"
COMMIT: Final = "eventstore/sql/postgres_commit.py"
CONNECTION: Final = "eventstore/sql/postgres_connection.py"

POSTGRES: Final = (
    Mutation(
        "one writer at a time takes positions (Postgres)",
        MIGRATION,
        "PERFORM pg_advisory_xact_lock(8242002329779269220);",
        "",
        (f"{_POSITIONS}::test_who_follows_the_log_misses_nothing",),
    ),
    Mutation(
        "the database looks at the version (Postgres)",
        MIGRATION,
        " AND h.version = a.expected",
        "",
        _RIVALS,
    ),
    Mutation("the database looks at the epoch (Postgres)", MIGRATION, " AND h.epoch = a.epoch", "", _RIVALS),
    Mutation(
        "who loses lets go of its claims (Postgres)",
        MIGRATION,
        "WHERE c.unit = ANY (lost) AND o.scope = c.scope",
        "WHERE false AND o.scope = c.scope",
        _RIVALS,
    ),
    Mutation(
        "a stream that a rival began is seen (Postgres)",
        MIGRATION,
        "WHERE a.new AND EXISTS (SELECT 1 FROM streams s WHERE s.name = a.name)",
        "WHERE false",
        _RIVALS,
    ),
    Mutation(
        "only fresh heads refuse (Postgres)",
        COMMIT,
        "if looked_at.issuperset(streams_of(unit)):",
        "if True:",
        _RIVALS,
    ),
    Mutation(
        "a call holds one unit of a stream (Postgres)",
        "eventstore/sql/postgres_writer.py",
        "if touched.isdisjoint(touches):",
        "if True:",
        (
            "tests/contract/test_store.py::test_of_many_who_append_at_once_to_one_stream_one_wins_each_version",
        ),
    ),
    Mutation(
        "an erasure is one of its own transaction (Postgres)",
        SEALING,
        "        WHERE r.position = OLD.position AND e.xmin = pg_current_xact_id()::xid\n",
        "        WHERE r.position = OLD.position\n",
        (f"{_SCHEMA}::test_the_database_refuses_to_rewrite_the_log",),
    ),
    Mutation(
        "one migration at a time (Postgres)",
        "eventstore/sql/postgres_migrate.py",
        "SELECT pg_advisory_xact_lock(:lock)",
        "SELECT cast(:lock AS bigint)",
        (f"{_SCHEMA}::test_many_may_migrate_at_once",),
    ),
    Mutation(
        "a server that loses commits is refused (Postgres)",
        CONNECTION,
        "if found not in safe:",
        "if False:",
        (f"{_STORE}::test_a_server_that_would_lose_events_is_refused",),
    ),
    Mutation(
        "a commit that nobody heard of is unknown (Postgres)",
        CONNECTION,
        "return (StoreUnavailable if aborted else OutcomeUnknown)(self.remedy(error))",
        "return StoreUnavailable(self.remedy(error))",
        (f"{_FAULTS}::test_a_connection_lost_during_a_commit_leaves_its_outcome_unknown",),
    ),
    Mutation(
        "leases stretch while the server is away (Postgres)",
        "eventstore/sql/postgres.py",
        "greatest(l.renewed_at, $2)",
        "coalesce(l.renewed_at, $2)",
        (f"{_FAULTS}::test_hosts_do_not_die_of_a_server_that_was_away",),
    ),
    Mutation(
        "leases stretch while the server stands still (Postgres)",
        CONNECTION,
        "if time.monotonic() - asked > _STALL_S:",
        "if False:",
        (f"{_FAULTS}::test_hosts_do_not_die_of_a_server_that_stood_still",),
    ),
)
