"""Clients of foreground responses go away, come back or stay: what is cancelled, when, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from actors import listener
from actors.attendance import CREATOR, LISTENERS_MAX, Attendance
from actors.listener import Listener
from actors.orders import ResumeOrder
from eventstore.meter import METER
from runtime.model import ItemOpened, TextDelta
from serve_app import presence
from serve_app.limits import Limits
from tests import virtual_time
from tests.local_cluster import CONFIG
from tests.unit.actors.kit import ScriptedModel, always
from tests.unit.serve_app.served import Connection, Served, events_of, served, until

GRACE = "X-Rayspond-Grace"
STEADY = replace(CONFIG, slots=600, lease_ttl=600.0)
"""Hosts whose leases do not run out: nobody renews them here."""


@pytest.fixture
def model() -> ScriptedModel:
    """Says a word and then nothing: what it was asked stays open until somebody closes it."""
    return ScriptedModel(always([ItemOpened("message"), TextDelta("Well")], asyncio.Event()))


@pytest.fixture
async def server(model: ScriptedModel) -> AsyncIterator[Served]:
    async with served(models={"simulated": model}, limits=Limits(grace=0.2), config=STEADY) as running:
        yield running


def post(server: Served, *, grace: str | None = None, **body: Any) -> Connection:
    text = orjson.dumps({"model": "simulated", "input": "x", "stream": True, **body})
    headers = {} if grace is None else {GRACE: grace}
    return Connection(server.api, "POST", "/v1/responses", text, headers)


def get(server: Served, response_id: str, **headers: str) -> Connection:
    path, query = f"/v1/responses/{response_id}", "stream=true"
    return Connection(server.api, "GET", path, headers=headers, query=query)


def the_id(server: Served) -> str:
    [response_id] = server.cluster.store._streams
    return response_id


async def begun(server: Served, **options: Any) -> Connection:
    connection = post(server, **options)
    await connection.until(b"Well")
    return connection


async def left(connection: Connection) -> None:
    """Serve hears of it at once, and cancels what answers."""
    connection.leave()
    connection.task.cancel()
    await asyncio.gather(connection.task, return_exceptions=True)


@pytest.mark.parametrize("stream", [True, False])
async def test_without_its_client_a_response_is_cancelled_and_its_call_closed(
    server: Served, model: ScriptedModel, stream: bool
) -> None:
    connection = post(server, stream=stream)
    await until(lambda: model.batches_read > 0)
    connection.leave()
    await connection.done()
    ended = await server.ended(the_id(server))
    assert ended["status"] == "cancelled"
    assert model.open_calls == 0
    events = events_of((await get(server, the_id(server)).done()).body)
    assert events[-1]["response"] == ended


async def test_who_comes_back_in_time_finds_it_running(server: Served, model: ScriptedModel) -> None:
    """It ends only when that client, too, is gone for good."""
    first = await begun(server, grace="1")
    await left(first)
    second = get(server, the_id(server))
    await second.until(b"Well")
    await asyncio.sleep(1.2)
    assert model.open_calls == 1
    await left(second)
    assert (await server.ended(the_id(server)))["status"] == "cancelled"


async def test_it_goes_on_while_anybody_listens(server: Served, model: ScriptedModel) -> None:
    creator = await begun(server)
    follower = get(server, the_id(server))
    await follower.until(b"Well")
    await left(follower)
    await asyncio.sleep(0.5)
    assert model.open_calls == 1, "its creator is there"
    await left(creator)
    assert (await server.ended(the_id(server)))["status"] == "cancelled"


async def test_grace_can_be_endless_or_none_at_all(server: Served, model: ScriptedModel) -> None:
    endless = await begun(server, grace="none")
    endless_id = the_id(server)
    await left(endless)
    at_once = await begun(server, grace="0")
    [at_once_id] = set(server.cluster.store._streams) - {endless_id}
    await left(at_once)
    assert (await server.ended(at_once_id))["status"] == "cancelled"
    await asyncio.sleep(0.5)
    assert (await server.client.get(f"/v1/responses/{endless_id}")).json()["status"] == "in_progress"
    assert model.open_calls == 1


async def test_background_responses_have_no_client_to_lose(server: Served, model: ScriptedModel) -> None:
    connection = await begun(server, background=True, grace="0")
    await left(connection)
    follower = get(server, the_id(server), **{GRACE: "0"})
    await follower.until(b"Well")
    await left(follower)
    await asyncio.sleep(0.5)
    assert model.open_calls == 1


@pytest.mark.parametrize("grace", ["-1", "1.5", "soon", "", "86401", "\u00b2"])
async def test_a_grace_that_makes_no_sense_is_refused(server: Served, grace: str) -> None:
    refused = await post(server, grace=grace).done()
    assert refused.status == 400
    assert not server.cluster.store._streams


async def test_a_replica_that_ends_the_connection_itself_has_lost_no_client(
    server: Served, model: ScriptedModel
) -> None:
    """As one that is stopped does."""
    kept, lost = await begun(server, grace="0"), await begun(server, grace="0")
    first, second = server.cluster.store._streams
    kept.task.cancel()
    await asyncio.gather(kept.task, return_exceptions=True)
    await left(lost)
    assert (await server.ended(second))["status"] == "cancelled"
    await asyncio.sleep(0.3)
    assert (await server.client.get(f"/v1/responses/{first}")).json()["status"] == "in_progress"


async def test_a_replica_that_ends_tells_nobody_any_more(server: Served, model: ScriptedModel) -> None:
    """Who left is told for as long as the response runs, and on what is closed nothing can be read."""
    await left(await begun(server, grace="600"))
    await get(server, the_id(server)).until(b"Well")
    await until(lambda: listeners() == 2)
    await server.api.aclose()
    assert listeners() == 0
    assert model.open_calls == 1, "it goes on"


def listeners() -> float:
    """What the figure of that name tells."""
    [[(_, value)]] = [figure.samples for figure in METER.figures() if figure.name == "listeners"]
    return value


async def test_who_leaves_before_anything_was_committed_leaves_no_response_behind(
    server: Served, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, waiting, go_on = server.cluster.store.append, asyncio.Event(), asyncio.Event()

    async def slow(unit: Any) -> Any:
        waiting.set()
        await go_on.wait()
        return await append(unit)

    monkeypatch.setattr(server.cluster.store, "append", slow)
    connection = post(server, grace="0")
    await waiting.wait()
    await left(connection)
    go_on.set()
    await until(lambda: bool(server.cluster.store._streams))
    assert (await server.ended(the_id(server)))["status"] == "cancelled"
    assert model.open_calls == 0


async def test_a_takeover_cancels_nothing_that_somebody_listens_to(
    server: Served, model: ScriptedModel
) -> None:
    """The new host knows of nobody: it takes the creator to be there until it hears otherwise."""
    creator = await begun(server)
    response_id = the_id(server)
    follower = get(server, response_id)
    await follower.until(b"Well")
    head = await server.cluster.store.head(response_id)
    assert head is not None
    server.cluster.factory.hosts[head.owner or ""].kill()
    await until(lambda: len(model.requests) == 2)
    await left(follower)
    await asyncio.sleep(0.5)
    assert model.open_calls == 1
    await left(creator)
    assert (await server.ended(response_id))["status"] == "cancelled"


async def killed_and_taken_over(server: Served, model: ScriptedModel) -> None:
    head = await server.cluster.store.head(the_id(server))
    assert head is not None
    calls = len(model.requests)
    server.cluster.factory.hosts[head.owner or ""].kill()
    await until(lambda: len(model.requests) > calls)


def graces(server: Served) -> int:
    """Responses that end soon, as the living hosts know."""
    hosts = server.cluster.factory.hosts.values()
    return sum(len(host._host._attendance._graces) for host in hosts if host._host is not None)


async def test_who_takes_a_response_over_is_told_that_its_client_left(
    server: Served, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "AGAIN_GRACE", 0.3)
    await left(await begun(server, grace="1"))
    await until(lambda: graces(server) == 1)
    await killed_and_taken_over(server, model)
    assert (await server.ended(the_id(server)))["status"] == "cancelled"
    assert model.open_calls == 0


async def test_who_takes_a_response_over_is_told_who_came_back(
    server: Served, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "AGAIN", 0.1)
    monkeypatch.setattr(listener, "AGAIN_GRACE", 1.0)
    creator = await begun(server, grace="1")
    follower = get(server, the_id(server))
    await follower.until(b"Well")
    await left(creator)
    await killed_and_taken_over(server, model)
    await asyncio.sleep(1.5)
    assert model.open_calls == 1
    await left(follower)
    assert (await server.ended(the_id(server)))["status"] == "cancelled"


async def test_followers_that_left_are_told_once_and_then_forgotten(
    server: Served, model: ScriptedModel
) -> None:
    """However often somebody opens and drops a stream of a response that goes on."""
    creator = await begun(server)
    for _ in range(3):
        follower = get(server, the_id(server))
        await follower.until(b"Well")
        await left(follower)
    background = server.api._presence._background
    await until(lambda: len(background) == 0)
    assert model.open_calls == 1
    await left(creator)
    assert (await server.ended(the_id(server)))["status"] == "cancelled"


async def test_who_takes_over_while_the_other_host_lives_is_told_who_listens(
    server: Served, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "AGAIN", 0.05)
    await begun(server)
    response_id = the_id(server)
    await get(server, response_id).until(b"Well")
    head = await server.cluster.store.head(response_id)
    assert head is not None
    hosts = {
        name: host._host for name, host in server.cluster.factory.hosts.items() if host._host is not None
    }
    first = hosts.pop(head.owner or "")
    [other] = hosts.values()
    await until(lambda: len(first._attendance._listeners[response_id]) == 2)
    assert (await other.obey([ResumeOrder(response_id, head.epoch)])).outcomes == [None]
    await until(lambda: len(other._attendance._listeners[response_id]) == 2)


def test_nobody_needs_to_know_of_a_follower_of_whom_no_host_heard() -> None:
    async def scenario() -> None:
        gone = asyncio.Event()
        follower, creator = (Listener("resp_1", name, gone, 1.0) for name in ("x", CREATOR))
        gone.set()
        assert not follower.is_done()
        await asyncio.gather(follower.pause(), creator.pause())
        assert follower.is_done()
        assert not creator.is_done()

    virtual_time.run(scenario())


@pytest.mark.parametrize("crowd", [50, pytest.param(1000, marks=pytest.mark.thorough)])
async def test_a_crowd_that_leaves_leaves_nothing_behind(model: ScriptedModel, crowd: int) -> None:
    """No model call, no task and no response that runs on."""
    async with served(models={"simulated": model}, limits=Limits(grace=0.0), config=STEADY) as server:
        before = len(asyncio.all_tasks())
        connections = [post(server, stream=number % 2 == 0) for number in range(crowd)]
        await until(lambda: model.batches_read == crowd)
        await asyncio.gather(*map(left, connections))
        heads = server.cluster.store._streams
        await until(lambda: all(stream.head.state == "cancelled" for stream in heads.values()))
        assert len(heads) == crowd
        assert model.open_calls == 0
        # A few of the supervisor's own come and go.
        await until(lambda: len(asyncio.all_tasks()) < before + 5)


def test_the_grace_begins_when_the_last_one_left_and_listeners_are_bounded() -> None:
    async def scenario() -> None:
        ended: list[tuple[str, float]] = []
        time = asyncio.get_running_loop().time

        async def abandon(response_id: str) -> None:
            ended.append((response_id, time()))

        attendance = Attendance(asyncio.sleep, abandon)
        attendance.begin("a")
        attendance.detach("unknown", CREATOR, 0.0)
        attendance.detach("a", CREATOR, 30.0)
        await asyncio.sleep(29)
        attendance.attach("a", "x")
        await asyncio.sleep(10)
        attendance.detach("a", "x", 30.0)
        attendance.detach("a", "x", 30.0)
        await asyncio.sleep(29)
        assert ended == []
        await asyncio.sleep(2)
        assert ended == [("a", 69.0)]
        attendance.end("a")
        attendance.begin("b")
        for number in range(2 * LISTENERS_MAX):
            attendance.attach("b", str(number))
        assert len(attendance._listeners["b"]) == LISTENERS_MAX
        attendance.end("b")
        assert not attendance._listeners
        assert not attendance._graces

    virtual_time.run(scenario())


async def test_of_too_great_a_crowd_nothing_is_told_and_nothing_waits_to_be(
    server: Served, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    creator = await begun(server)
    follower = get(server, the_id(server))
    await follower.until(b"Well")
    await left(creator)
    background = server.api._presence._background
    await until(lambda: len(background) == 2)
    monkeypatch.setattr(presence, "TELLING_MAX", 0)
    await left(follower)
    await until(lambda: len(background) == 1)
    await asyncio.sleep(0.5)
    assert model.open_calls == 1, "it goes on"
