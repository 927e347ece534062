"""`rayspond audit verify`, `events`, `replay` and `tail`, on a log that runs and on copies of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from eventstore.events import NO_STREAM, Append, NewEvent, NewStream, Unit
from eventstore.sql.sqlite import SqliteEventStore
from runtime.response.wire import DONE_FRAME
from serve_app.launch.errors import CannotStart
from tests.audited import DELETED, FIRST, command, make_log


@pytest.fixture
def log(tmp_path: Path) -> tuple[Path, bytes]:
    """Its directory, and what the first response showed."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    return data_dir, asyncio.run(_made(data_dir))


async def _made(data_dir: Path) -> bytes:
    return await make_log(await SqliteEventStore.open(data_dir, may_own=True))


def run(*arguments: str, data_dir: Path) -> Result:
    return command(*arguments, "--data-dir", str(data_dir))


def tamper(data_dir: Path, *statements: str) -> None:
    """Change the database behind its triggers' back."""
    with closing(sqlite3.connect(data_dir / "log.db")) as connection:
        for (trigger,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            assert connection.execute(statement).rowcount > 0
        connection.commit()


def test_a_log_that_is_what_was_recorded_is_verified_and_left_as_it_is(log: tuple[Path, bytes]) -> None:
    data_dir, _ = log
    before = (data_dir / "log.db").read_bytes()
    whole = run("audit", "verify", data_dir=data_dir)
    assert whole.exit_code == 0, whole.output
    assert "the log is what was recorded" in whole.output
    assert "erased" in whole.output
    assert (data_dir / "log.db").read_bytes() == before
    told = json.loads(run("audit", "verify", "--json", data_dir=data_dir).output)
    assert (told["streams"], told["wrong"], told["first"]) == (3, 0, None)


async def test_a_log_that_is_written_to_is_verified_meanwhile(tmp_path: Path) -> None:
    store = await SqliteEventStore.open(tmp_path, may_own=True)
    for number in range(30):
        await store.append(said(f"stream-{number}"))
    verified = await asyncio.to_thread(run, "audit", "verify", data_dir=tmp_path)
    await store.aclose()
    assert verified.exit_code == 0, verified.output
    assert "30 events in 30 records of 30 streams" in verified.output


def said(stream: str) -> Unit:
    new = NewStream("response", "default", "queued")
    return Unit([Append(stream, NO_STREAM, 1, [NewEvent("said", b"hello")], new=new)])


EDITED = (
    "UPDATE payloads SET payload = CAST(replace(CAST(payload AS TEXT), 'Hello', 'Jello') AS BLOB)"
    " WHERE position = 2",
)
DATED = ("UPDATE records SET recorded_at = recorded_at + 1 WHERE position = 2",)
REMOVED = ("DELETE FROM records WHERE position = 2", "DELETE FROM payloads WHERE position = 2")
INSERTED = (
    "INSERT INTO records SELECT (SELECT max(position) + 1 FROM records), stream_id, 99, types, schema, epoch,"
    " recorded_at, digest, chain FROM records WHERE position = 2",
)
MOVED = (
    "UPDATE records SET position = -2 WHERE position = 2",
    "UPDATE records SET position = 2 WHERE position = 1",
    "UPDATE records SET position = 1 WHERE position = -2",
)
HEADLESS = ("DELETE FROM streams WHERE name LIKE 'resp_1%'",)


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (EDITED, f"position 2: stream '{FIRST}', version 2"),
        (DATED, f"position 2: stream '{FIRST}', version 2"),
        (REMOVED, f"stream '{FIRST}', version 2"),
        (INSERTED, f"stream '{FIRST}', version"),
        (MOVED, f"stream '{FIRST}', version"),
        (HEADLESS, "position 1"),
    ],
    ids=["edited", "dated", "removed", "inserted", "moved", "headless"],
)
def test_the_first_event_that_is_not_what_was_recorded_is_named(
    log: tuple[Path, bytes], tmp_path: Path, statements: tuple[str, ...], named: str
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in log[0].glob("log.db*"):
        shutil.copy(file, copy)
    tamper(copy, *statements)
    found = run("audit", "verify", data_dir=copy)
    assert (found.exit_code, named in found.output) == (1, True), found.output
    assert run("audit", "verify", data_dir=log[0]).exit_code == 0


def test_a_log_that_cannot_be_read_is_another_matter(tmp_path: Path) -> None:
    """Exit code 2, as for everything that could not begin."""
    absent = run("audit", "verify", data_dir=tmp_path)
    assert isinstance(absent.exception, CannotStart)
    assert "does not exist" in str(absent.exception)
    (tmp_path / "log.db").write_bytes(b"not a database" * 100)
    broken = run("audit", "verify", data_dir=tmp_path)
    assert isinstance(broken.exception, CannotStart)
    assert "cannot be read" in str(broken.exception)


def test_a_replay_is_what_was_shown_to_the_byte(log: tuple[Path, bytes]) -> None:
    data_dir, frames = log
    assert run("replay", FIRST, data_dir=data_dir).stdout_bytes == frames + DONE_FRAME
    rest = run("replay", FIRST, "--starting-after", "3", data_dir=data_dir).stdout_bytes
    assert rest == b"".join(part + b"\n\n" for part in frames.split(b"\n\n")[4:-1]) + DONE_FRAME
    for unknown, why in (("resp_" + "9" * 32, "knows no"), (DELETED, "was erased"), ("x", "not the id")):
        assert why in str(run("replay", unknown, data_dir=data_dir).exception)


def test_events_are_told_as_they_are_recorded(log: tuple[Path, bytes]) -> None:
    lines = [json.loads(line) for line in run("events", FIRST, data_dir=log[0]).output.splitlines()]
    assert [line["version"] for line in lines] == list(range(len(lines)))
    assert (lines[0]["type"], lines[-1]["type"]) == ("response_created", "response_completed")
    assert lines[0]["data"]["id"] == FIRST
    erased = [json.loads(line) for line in run("events", DELETED, data_dir=log[0]).output.splitlines()]
    assert {line["data"] for line in erased[:-1]} == {None}
    assert erased[-1]["data"]["by"] == "key_1"


def test_a_tail_begins_where_it_is_told_and_goes_on(
    log: tuple[Path, bytes], children: Callable[[list[str]], subprocess.Popen[str]]
) -> None:
    tail = children(["tail", "--data-dir", str(log[0]), "--after", "0"])
    assert tail.stdout is not None
    first: dict[str, Any] = json.loads(tail.stdout.readline())
    assert (first["position"], first["stream"], first["type"]) == (1, FIRST, "response_created")


@pytest.fixture
def children() -> Any:
    """Starts `rayspond`; what still runs is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(arguments: list[str]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "serve_app.cli", *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.communicate()
