"""`rayspond audit verify`, `events`, `replay` and `tail` on a log in Postgres."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import asyncpg
import pytest
from click.testing import Result

from eventstore.sql.postgres import PostgresEventStore
from runtime.response.wire import DONE_FRAME
from tests.audited import DELETED, FIRST, command, make_log

EDITED = (
    "UPDATE payloads SET payload = set_byte(payload, length(payload) - 1,"
    " get_byte(payload, length(payload) - 1) # 1) WHERE position = 2",
)
REMOVED = ("DELETE FROM payloads WHERE position = 2", "DELETE FROM records WHERE position = 2")
INSERTED = (
    "INSERT INTO records SELECT (SELECT max(position) + 1 FROM records), stream_id, 99, types, schema, epoch,"
    " recorded_at, digest, chain FROM records WHERE position = 2",
)
MOVED = (
    "UPDATE records SET position = -2 WHERE position = 2",
    "UPDATE records SET position = 2 WHERE position = 1",
    "UPDATE records SET position = 1 WHERE position = -2",
)


def run(*arguments: str, url: str) -> Result:
    return command(*arguments, "--log-url", url)


async def tamper(url: str, *statements: str) -> None:
    """Change the database as its owner may: without its triggers and foreign keys."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET session_replication_role = replica")
        for statement in statements:
            assert (await connection.execute(statement)).split()[-1] != "0"
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (EDITED, f"position 2: stream '{FIRST}', version 2"),
        (REMOVED, f"stream '{FIRST}', version 2"),
        (INSERTED, f"stream '{FIRST}', version"),
        (MOVED, f"stream '{FIRST}', version"),
    ],
    ids=["edited", "removed", "inserted", "moved"],
)
def test_the_first_event_that_is_not_what_was_recorded_is_named(
    postgres: str, statements: tuple[str, ...], named: str
) -> None:
    asyncio.run(make_log(PostgresEventStore(postgres)))
    whole = run("audit", "verify", url=postgres)
    assert (whole.exit_code, "the log is what was recorded" in whole.output) == (0, True), whole.output
    asyncio.run(tamper(postgres, *statements))
    found = run("audit", "verify", url=postgres)
    assert (found.exit_code, named in found.output) == (1, True), found.output


def test_events_replays_and_the_tail_are_those_of_every_log(postgres: str) -> None:
    frames = asyncio.run(make_log(PostgresEventStore(postgres)))
    assert run("replay", FIRST, url=postgres).stdout_bytes == frames + DONE_FRAME
    lines = [json.loads(line) for line in run("events", FIRST, url=postgres).output.splitlines()]
    assert [line["version"] for line in lines] == list(range(len(lines)))
    assert (lines[0]["type"], lines[-1]["type"]) == ("response_created", "response_completed")
    erased = [json.loads(line) for line in run("events", DELETED, url=postgres).output.splitlines()]
    assert {line["data"] for line in erased[:-1]} == {None}
    tail = subprocess.Popen(
        [sys.executable, "-m", "serve_app.cli", "tail", "--log-url", postgres, "--after", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert tail.stdout is not None
        first: dict[str, Any] = json.loads(tail.stdout.readline())
    finally:
        tail.kill()
        tail.communicate()
    assert (first["position"], first["stream"], first["type"]) == (1, FIRST, "response_created")
