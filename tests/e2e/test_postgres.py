"""The same server with its log in Postgres: the main path again, and a database that restarts.

The tests that are imported here run once more, on this module's server.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.conftest import connect
from tests.e2e.log import findings, records
from tests.e2e.parts import HOST, named
from tests.e2e.test_bad_input import post, test_an_id_that_is_none_is_not_found
from tests.e2e.test_conversations import test_the_life_of_a_conversation
from tests.e2e.test_faults import (
    STREAMS,
    TEXT,
    eventually,
    finished,
    listening,
    ready,
    test_open_streams_survive_the_death_of_all_hosts_at_once,
    test_open_streams_survive_the_death_of_one_host_after_the_other,
)
from tests.e2e.test_idempotency import test_64_requests_with_one_key_make_one_response
from tests.e2e.test_openai_async import (
    test_a_queued_response_can_be_cancelled,
    test_many_at_once_each_get_their_own_words,
    test_what_is_cancelled_elsewhere_ends_its_stream,
)
from tests.e2e.test_openai_sync import (
    test_a_chain_of_twenty_tells_the_upstream_all_of_it,
    test_a_deleted_response_is_gone,
    test_a_response_forks,
    test_a_stream_has_every_event_in_order,
    test_cancel_ends_what_runs_and_its_upstream_call,
)
from tests.e2e.test_restart import SLOTS, test_killed_and_started_again
from tests.e2e.upstream import Upstream
from tests.e2e.wire import id_of, replayed
from tests.launching import Instance, rayspond
from tests.postgres_server import PostgresServer

__all__ = [
    "post",
    "ready",
    "test_64_requests_with_one_key_make_one_response",
    "test_a_chain_of_twenty_tells_the_upstream_all_of_it",
    "test_a_deleted_response_is_gone",
    "test_a_queued_response_can_be_cancelled",
    "test_a_response_forks",
    "test_a_stream_has_every_event_in_order",
    "test_an_id_that_is_none_is_not_found",
    "test_cancel_ends_what_runs_and_its_upstream_call",
    "test_killed_and_started_again",
    "test_many_at_once_each_get_their_own_words",
    "test_open_streams_survive_the_death_of_all_hosts_at_once",
    "test_open_streams_survive_the_death_of_one_host_after_the_other",
    "test_the_life_of_a_conversation",
    "test_what_is_cancelled_elsewhere_ends_its_stream",
]

PASSWORD = "sk-database-secret"
HALTED_S = 5.0


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """A Postgres of this module's own, that asks for no password and is always given one."""
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="module")
def instance(
    tmp_path_factory: pytest.TempPathFactory,
    upstream: Upstream,
    base_environment: dict[str, str],
    database: PostgresServer,
) -> Iterator[Instance]:
    """A running instance on Postgres that seals what ends at once; no file of it shows the password."""
    directory = tmp_path_factory.mktemp("postgres")
    environment = {
        **base_environment,
        # A database that is new and empty: the server prepares it itself.
        "RAYSPOND_LOG_URL": database.make_empty("served").replace("postgres@", f"postgres:{PASSWORD}@"),
        "RAYSPOND_SEAL_AFTER_S": "0",
    }
    options = ("--config", str(upstream.models(directory / "models.yaml")), "--slots", str(SLOTS))
    running = Instance(directory / "data", *options, app=None, **environment)
    try:
        yield running.wait_ready()
        running.stop()
    finally:
        running.kill()


@pytest.fixture
def server(instance: Instance) -> Instance:
    """The one that is killed and started again: that of all tests here."""
    return instance


@pytest.fixture(scope="module")
def client(instance: Instance) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with connect(instance) as one:
        yield one


async def test_open_streams_survive_a_restart_of_the_database(
    instance: Instance, http: httpx.AsyncClient, database: PostgresServer
) -> None:
    """Nothing is shown while it is away; then every stream goes on, on the same connection."""
    listeners = await listening(http, "repeats", STREAMS, 10)
    for _ in range(2):
        heard = [one.deltas for one in listeners]
        database.stop()
        database.start()
        await eventually(
            lambda heard=heard: all(  # type: ignore[misc]  # A default binds the loop's value.
                one.deltas > before or one.task.done() for one, before in zip(listeners, heard, strict=True)
            ),
            "more of every answer",
        )
    assert await finished(listeners) == [TEXT] * STREAMS
    for one in listeners[:3]:
        assert await replayed(http, id_of(one.payloads[0])) == one.payloads


async def test_open_streams_survive_a_database_that_stands_still(
    instance: Instance, http: httpx.AsyncClient, database: PostgresServer
) -> None:
    """SIGSTOP for all its processes, longer than any lease: nobody dies of it, and nothing is said twice."""
    hosts = named(instance, HOST)
    listeners = await listening(http, "repeats", STREAMS, 10)
    with database.halted():
        await asyncio.sleep(HALTED_S)
    assert await finished(listeners) == [TEXT] * STREAMS
    assert named(instance, HOST) == hosts
    for one in listeners[:3]:
        assert await replayed(http, id_of(one.payloads[0])) == one.payloads


async def test_a_database_that_is_away_is_said_to_be(
    instance: Instance, http: httpx.AsyncClient, database: PostgresServer
) -> None:
    """Not ready, a clear refusal, and well again by itself."""
    database.stop()
    try:
        answer = await http.get("/readyz")
        assert answer.status_code == 503
        assert f"127.0.0.1:{database.port}/served" in answer.text
        assert PASSWORD not in answer.text
        refused = await http.post("/v1/responses", json={"model": "simulated", "input": "x"})
        assert refused.status_code in (503, 504, 507), refused.text
        assert PASSWORD not in refused.text
    finally:
        database.start()
    await eventually(lambda: _well(instance), "a server that is ready again")
    made = await http.post("/v1/responses", json={"model": "simulated", "input": "x"})
    assert made.json()["status"] == "completed"


def _well(instance: Instance) -> bool:
    try:
        return instance.get("/readyz")[0] == 200
    except OSError:
        return False


async def test_the_log_is_whole_and_the_doctor_says_so(instance: Instance) -> None:
    url = instance.runtime["log_url"]
    assert any("$sealed" in record.types for record in await records(url)), "nothing was sealed meanwhile"
    assert await findings(url) == []
    said = rayspond("doctor", "--data-dir", str(instance.data_dir), environment={"RAYSPOND_LOG_URL": url})
    assert "holds a log of this version" in said.stdout
    assert PASSWORD not in said.stdout + said.stderr


def test_no_log_line_shows_the_password(instance: Instance) -> None:
    """Neither ours nor Ray's nor Serve's; runtime.json holds the URL for its owner alone."""
    scratch = Path((instance.data_dir / "scratch.path").read_text())
    command = ("grep", "-rlaF", PASSWORD, str(instance.data_dir), str(scratch))
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    assert found == [str(instance.data_dir / "runtime.json")]
    assert os.stat(instance.data_dir / "runtime.json").st_mode & 0o777 == 0o600
    assert PASSWORD not in instance.output
