"""Events on the wire: framing, resumption, keep-alives, and clients that leave."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest

from serve_app.limits import Limits
from tests.conformance import check_event
from tests.unit.serve_app.served import Connection, Served, events_of, served, until

PACED = "simulated?deltas=6&interval_ms=20"
STALLED = "simulated?stall_after=2"


def post(server: Served, **body: Any) -> Connection:
    body = {"model": "simulated", "stream": True, "input": "Hello", **body}
    return Connection(server.api, "POST", "/v1/responses", orjson.dumps(body))


def get(server: Served, response_id: str, query: str = "stream=true") -> Connection:
    return Connection(server.api, "GET", f"/v1/responses/{response_id}", query=query)


def id_of(text: bytes) -> str:
    return str(orjson.loads(text.split(b"data: ", 1)[1].split(b"\n", 1)[0])["response"]["id"])


async def test_a_stream_has_the_protocols_frames(server: Served) -> None:
    stream = await post(server).done()
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.headers["cache-control"] == "no-cache"
    assert stream.headers["x-request-id"]
    assert stream.complete
    events = events_of(stream.body)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == "response.completed"
    for event in events:
        check_event(orjson.dumps(event))
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert text == "This answer is simulated. You wrote: Hello"


async def test_every_write_holds_whole_frames(server: Served) -> None:
    stream = await post(server, model=PACED).done()
    written = [chunk for chunk in stream.chunks if chunk]
    assert len(written) > 3, "it came in pieces"
    assert all(chunk.endswith(b"\n\n") for chunk in written)


async def test_frames_come_as_they_are_said(server: Served) -> None:
    """The first ones are there while the model still speaks."""
    stream = post(server, model=STALLED)
    await stream.until(b"response.output_text.delta")
    assert not stream.complete
    await server.client.post(f"/v1/responses/{id_of(stream.body)}/cancel")
    events = events_of((await stream.done()).body)
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["status"] == "cancelled"


async def test_a_json_answer_is_the_snapshot_in_the_streams_last_event(server: Served) -> None:
    body = (await server.create(input="x")).content
    events = (await get(server, orjson.loads(body)["id"]).done()).body.split(b"\n\n")
    assert events[-3].endswith(b',"response":' + body + b"}")


async def test_a_stream_can_be_had_again_from_every_number(server: Served) -> None:
    first = (await post(server, model=PACED).done()).body
    frames = first.split(b"\n\n")
    for after in range(-1, len(frames) - 2):
        query = "stream=true" if after < 0 else f"stream=true&starting_after={after}"
        again = await get(server, id_of(first), query).done()
        assert again.body == b"\n\n".join(frames[after + 1 :])


@pytest.mark.parametrize("after", [10_000, 2**62, 2**63 - 1])
async def test_beyond_the_end_there_is_only_done(server: Served, after: int) -> None:
    response_id = (await server.create(input="x")).json()["id"]
    stream = await get(server, response_id, f"stream=true&starting_after={after}").done()
    assert stream.body == b"data: [DONE]\n\n"


async def test_a_running_stream_is_joined_and_the_union_has_no_gap(server: Served) -> None:
    """Several readers at once, from different numbers, see the same frames."""
    first = post(server, model="simulated?deltas=30&interval_ms=5", background=True)
    await first.until(b"output_text.delta")
    response_id = id_of(first.body)
    others = {after: get(server, response_id, f"stream=true&starting_after={after}") for after in (0, 3, 7)}
    whole = (await first.done()).body.split(b"\n\n")
    for after, other in others.items():
        assert (await other.done()).body.split(b"\n\n") == whole[after + 1 :]


@pytest.mark.parametrize(
    "query",
    [
        "stream=maybe",
        "stream=true&starting_after=-1",
        "stream=true&starting_after=x",
        "stream=true&starting_after=1.5",
        "stream=true&starting_after=9223372036854775808",
        "stream=true&starting_after=",
        "stream=true&starting_after=%C2%B2",
        "include_obfuscation=2",
        "&".join(f"a{number}=1" for number in range(200)),
    ],
)
async def test_a_query_that_makes_no_sense_is_a_400(server: Served, query: str) -> None:
    response_id = (await server.create(input="x")).json()["id"]
    assert (await get(server, response_id, query).done()).status == 400


async def test_an_error_before_the_first_byte_is_an_http_error(server: Served) -> None:
    for body in ({"temperature": 9}, {"previous_response_id": "resp_x"}, {"model": "nothing"}):
        refused = await post(server, **body).done()
        assert refused.status in (400, 404, 422)
        assert refused.headers["content-type"] == "application/json"
    assert not server.cluster.store._streams


async def test_a_background_stream_goes_on_without_its_client(server: Served) -> None:
    stream = post(server, model=PACED, background=True)
    await stream.until(b"response.created")
    stream.leave()
    await stream.done()
    assert not stream.complete
    events = events_of((await get(server, id_of(stream.body)).done()).body)
    types = [event["type"] for event in events]
    assert types[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert types[-1] == "response.completed"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_leaves_nothing_behind(server: Served, stream: bool) -> None:
    before = asyncio.all_tasks()
    connection = post(server, model=STALLED, stream=stream, background=False)
    await until(lambda: bool(server.cluster.bus._subscriptions))
    connection.leave()
    await connection.done()
    assert not server.cluster.bus._subscriptions
    left = {task for task in asyncio.all_tasks() - before if task.get_name() == "departure"}
    assert not left


async def test_a_connection_that_the_server_ends_leaves_nothing_behind(server: Served) -> None:
    """Serve cancels the handler when the client left."""
    connection = post(server, model=STALLED)
    await connection.until(b"output_text.delta")
    connection.task.cancel()
    await asyncio.gather(connection.task, return_exceptions=True)
    assert not server.cluster.bus._subscriptions


async def test_silence_is_broken_by_comments() -> None:
    async with served(limits=Limits(keep_alive=0.5)) as server:
        stream = post(server, model=STALLED)
        await stream.until(b": keep-alive\n\n")
        await server.client.post(f"/v1/responses/{id_of(stream.body)}/cancel")
        text = (await stream.done()).body
        assert text.split(b"\n\n").count(b": keep-alive") >= 1
        assert events_of(text)[-1]["type"] == "response.incomplete"


async def test_a_store_that_stays_away_cuts_the_stream_without_an_end() -> None:
    """Then the client may resume; a JSON answer tells the id, and not to ask anew."""
    async with served(limits=Limits(patience=0.1)) as server:
        stream = post(server, model=STALLED)
        await stream.until(b"output_text.delta")
        waiting = post(server, model=STALLED, stream=False)
        await until(lambda: len(server.cluster.store._streams) == 2)
        server.cluster.store.available = False
        await stream.done()
        assert (stream.status, stream.complete) == (200, False)
        assert b"[DONE]" not in stream.body
        await waiting.done()
        assert waiting.status == 503
        assert waiting.headers["x-should-retry"] == "false"
        assert b"goes on" in waiting.body


async def test_what_goes_wrong_within_a_stream_cuts_it(server: Served) -> None:
    """No second answer can follow the first, here about an event of a newer version."""
    response_id = (await server.create(input="x")).json()["id"]
    records = server.cluster.store._streams[response_id].records
    records[-1] = replace(records[-1], schema=99)
    stream = await get(server, response_id, "stream=true").done()
    assert (stream.status, stream.complete) == (200, False)
    assert b"response.created" in stream.body
    assert b"[DONE]" not in stream.body


async def test_nothing_of_a_lossy_bus_is_seen(server: Served) -> None:
    """Every second batch is lost, the others come twice."""
    count = 0

    def distort(batch: Any) -> list[Any]:
        nonlocal count
        count += 1
        return [batch, batch] if count % 2 else []

    server.cluster.bus.distort = distort
    events = events_of((await post(server, model="simulated?deltas=10&interval_ms=2").done()).body)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
