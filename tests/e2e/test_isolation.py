"""Every response in a Ray actor of its own: what users do works the same, and Ray drivers can see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import httpx
import openai
import psutil
import pytest

from tests.e2e.conftest import SERVER_LIMIT_S, connect
from tests.e2e.upstream import Upstream, own
from tests.e2e.wire import check_whole, id_of, opened, replayed, text_of
from tests.fakes.script import words
from tests.launching import Instance, rayspond, until

LONG = "fake?deltas=200&interval_ms=100&goes_on=1&key=isolation"

DRIVER = """
import json, sys, ray, actors
address, response_id = sys.argv[1:]
ray.init(address=address, log_to_driver=False, logging_level="error")
response = actors.get(response_id)
said = {"running": response.state()["status"], "first": next(response.events())["type"]}
said["cancelled"] = response.cancel()["status"]
said["numbers"] = [event["sequence_number"] for event in response.events()]
try:
    actors.get("resp_" + "0" * 32).state()
except actors.orders.UnknownResponse:
    said["unknown"] = True
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def dedicated(
    request: pytest.FixtureRequest,
    upstream: Upstream,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Instance]:
    """A server that gives every response a Ray actor; that of all tests, where they ask for it."""
    if os.environ.get("RAYSPOND_ISOLATION") == "dedicated":
        yield request.getfixturevalue("instance")
        return
    directory = tmp_path_factory.mktemp("dedicated")
    models = upstream.models(directory / "models.yaml")
    options = ("--config", str(models), "--isolation", "dedicated", "--hosts", "1", "--replicas", "1")
    running = Instance(directory / "data", *options, app=None, **environment)
    try:
        yield running.wait_ready()
        running.stop()
    finally:
        running.kill()


@pytest.fixture(scope="module")
def user(dedicated: Instance) -> Iterator[openai.OpenAI]:
    with connect(dedicated) as one:
        # Processes start and end all the time here: like any client, it comes again where it is told to.
        yield one.with_options(max_retries=2)


@pytest.fixture
async def wire(dedicated: Instance) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=dedicated.url, timeout=SERVER_LIMIT_S) as one:
        yield one


@pytest.fixture
def running(user: openai.OpenAI) -> Iterator[str]:
    """A response that runs."""
    response = user.responses.create(model=LONG, input="x", background=True)
    until(lambda: user.responses.retrieve(response.id).status == "in_progress", "its start")
    yield response.id
    user.responses.cancel(response.id)


def hosts(server: Instance) -> list[dict[str, object]]:
    """What `rayspond ps` tells."""
    done = rayspond("ps", "--data-dir", str(server.data_dir), "--json")
    assert done.returncode == 0, done.stderr
    listed: list[dict[str, object]] = json.loads(done.stdout)
    return listed


def host_of(server: Instance, response_id: str) -> dict[str, object]:
    """The host that runs a response."""
    found: dict[str, object] = until(
        lambda: next((host for host in hosts(server) if response_id in json.dumps(host["responses"])), None),
        "the response in the list",
    )
    return found


def test_text_streams_and_chains_are_the_same(user: openai.OpenAI) -> None:
    first = user.responses.create(model=own("deltas=20"), input="x")
    assert first.output_text == "".join(words(20))
    with user.responses.stream(model=own("echo=1"), input="again", previous_response_id=first.id) as stream:
        assert stream.get_final_response().output_text == "again"


def test_ps_tells_which_actor_and_process_runs_a_response(dedicated: Instance, running: str) -> None:
    host = host_of(dedicated, running)
    assert host["actor"] == f"response:{running}"
    assert host["isolation"] == "dedicated"
    assert psutil.pid_exists(int(str(host["pid"])))
    shown = rayspond("ps", "--data-dir", str(dedicated.data_dir))
    assert str(host["pid"]) in shown.stdout


def test_its_actor_ends_with_the_response(dedicated: Instance, user: openai.OpenAI, running: str) -> None:
    pid = int(str(host_of(dedicated, running)["pid"]))
    assert user.responses.cancel(running).status == "cancelled"
    until(lambda: not psutil.pid_exists(pid), "the end of its process")
    assert running not in json.dumps(hosts(dedicated))


async def test_a_stream_survives_the_death_of_its_actor(dedicated: Instance, wire: httpx.AsyncClient) -> None:
    body = {"model": "goes-on", "input": "x", "stream": True}
    async with opened(wire, "POST", "/v1/responses", json=body) as payloads:
        heard = [await anext(payloads)]
        while len(heard) < 15:
            heard.append(await anext(payloads))
        psutil.Process(int(str(host_of(dedicated, id_of(heard[0]))["pid"]))).kill()
        heard += [payload async for payload in payloads]
    assert check_whole(heard)["status"] == "completed"
    assert text_of(heard) == "".join(words(100))
    assert await replayed(wire, id_of(heard[0])) == heard


def test_any_ray_driver_sees_and_steers_a_response(
    dedicated: Instance, user: openai.OpenAI, running: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, dedicated.runtime["ray_address"], running],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **dedicated.runtime["ray_env"]},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    numbers = said.pop("numbers")
    assert said == {
        "running": "in_progress",
        "first": "response.created",
        "cancelled": "cancelled",
        "unknown": True,
    }
    assert numbers == list(range(len(numbers)))
    assert user.responses.retrieve(running).status == "cancelled"
