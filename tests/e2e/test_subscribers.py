"""Programs that listen to responses over NATS, as the documentation tells them to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingCame
from nats.js import JetStreamContext

from eventstore.nats_config import STREAM, SUBSCRIBER_INBOX
from tests.e2e.upstream import own
from tests.e2e.wire import created, id_of, opened, replayed
from tests.launching import Instance
from tests.nats_barrier import arrived
from tests.patience import PATIENCE_S


class Subscriber:
    """A NATS client with the credentials of `runtime.json`, and what the server refused it."""

    def __init__(self) -> None:
        self.client = Client()
        self.refused: asyncio.Queue[str] = asyncio.Queue()

    async def connect(self, url: str) -> None:
        async def refuse(error: Exception) -> None:
            self.refused.put_nowait(str(error))

        await self.client.connect(url, inbox_prefix=SUBSCRIBER_INBOX.encode(), error_cb=refuse)


@pytest.fixture
async def subscriber(instance: Instance) -> AsyncIterator[Subscriber]:
    one = Subscriber()
    await one.connect(instance.runtime["nats_url"])
    yield one
    await one.client.close()


async def heard(
    subscriber: Subscriber, subject: str, http: httpx.AsyncClient, **body: object
) -> tuple[list[bytes], list[Msg]]:
    """Create a response and listen meanwhile: its SSE payloads, and its messages up to the last one."""
    listening = await subscriber.client.subscribe(subject)
    await arrived(subscriber.client)
    payloads = (await created(http, {"input": "x", **body}))[:-1]
    messages: list[Msg] = []
    while not messages or messages[-1].data != payloads[-1]:
        message = await listening.next_msg(PATIENCE_S)
        if message.headers is not None and message.headers["ce-subject"] == id_of(payloads[0]):
            messages.append(message)
    return payloads, messages


async def test_a_subscriber_gets_every_event_in_order(
    subscriber: Subscriber, http: httpx.AsyncClient
) -> None:
    """The very bytes of the SSE, each on the subject of its type, with the documented headers."""
    payloads, messages = await heard(subscriber, "rayspond.default.>", http, model=own("deltas=30"))
    assert [message.data for message in messages] == payloads
    versions, positions = [], []
    response_id = id_of(payloads[0])
    for number, message in enumerate(messages):
        event = json.loads(message.data)
        kind = "deltas" if event["type"].endswith(".delta") else "events"
        assert message.subject == f"rayspond.default.{kind}.{response_id}.{event['type']}"
        headers = message.headers
        assert headers is not None
        incarnation = headers["ce-id"].split(":")[0]
        assert headers["Nats-Msg-Id"] == headers["ce-id"] == f"{incarnation}:{response_id}:{number}"
        assert headers["ce-specversion"] == "1.0"
        assert headers["ce-source"] == "/rayspond/default"
        assert headers["ce-type"] == event["type"]
        assert headers["ce-subject"] == response_id
        assert headers["ce-datacontenttype"] == "application/json"
        assert headers["ce-sequencenumber"] == str(number)
        versions.append(int(headers["ce-version"]))
        positions.append(int(headers["ce-position"]))
    assert versions == sorted(versions)
    assert positions == sorted(positions)


async def test_a_cancelled_response_ends_in_cancelled(
    subscriber: Subscriber, http: httpx.AsyncClient
) -> None:
    ends = await subscriber.client.subscribe("rayspond.*.events.*.response.cancelled")
    await arrived(subscriber.client)
    body = {"model": own("deltas=3000&interval_ms=20"), "input": "x", "stream": True}
    async with opened(http, "POST", "/v1/responses", json=body) as payloads:
        response_id = id_of(await anext(payloads))
        await http.post(f"/v1/responses/{response_id}/cancel")
        rest = [payload async for payload in payloads]
    message = await ends.next_msg(PATIENCE_S)
    assert message.subject == f"rayspond.default.events.{response_id}.response.cancelled"
    assert message.data == rest[-2]
    assert json.loads(message.data)["response"]["status"] == "cancelled"


async def test_what_is_not_stored_is_only_transient(subscriber: Subscriber, http: httpx.AsyncClient) -> None:
    payloads, messages = await heard(subscriber, "rayspond.>", http, model=own("deltas=5"), store=False)
    assert [message.data for message in messages] == payloads
    assert {message.subject.split(".")[2] for message in messages} == {"transient"}
    response_id = id_of(payloads[0])
    consumer = await subscriber.client.jetstream().pull_subscribe(
        f"rayspond.*.*.{response_id}.>", stream=STREAM
    )
    with pytest.raises(NothingCame):
        await consumer.fetch(1, timeout=0.5)


async def test_a_consumer_that_was_away_gets_what_it_missed(
    instance: Instance, subscriber: Subscriber, http: httpx.AsyncClient
) -> None:
    consumer = await subscriber.client.jetstream().pull_subscribe(
        "rayspond.*.events.>", durable="away", stream=STREAM
    )
    before = await created(http, {"model": own(), "input": "x"})
    await _fetch(consumer, [before])
    await subscriber.client.close()
    missed = [await created(http, {"model": own(), "input": "x"}) for _ in range(3)]
    back = Subscriber()
    await back.connect(instance.runtime["nats_url"])
    try:
        again = await back.client.jetstream().pull_subscribe(
            "rayspond.*.events.>", durable="away", stream=STREAM
        )
        await _fetch(again, missed)
        await back.client.jetstream().delete_consumer(STREAM, "away")
    finally:
        await back.client.close()


@pytest.mark.parametrize("subject", ["_rs.>", "_rs.live.*", ">", "$SYS.>"])
async def test_what_is_private_stays_private(
    subscriber: Subscriber, http: httpx.AsyncClient, subject: str
) -> None:
    listening = await subscriber.client.subscribe(subject)
    refusal = await asyncio.wait_for(subscriber.refused.get(), PATIENCE_S)
    assert "permissions violation" in refusal.lower()
    await created(http, {"model": own(), "input": "x"})
    with pytest.raises((NothingCame, nats.errors.BadSubscriptionError, nats.errors.ConnectionClosedError)):
        await listening.next_msg(0.2)


async def test_a_subscriber_publishes_nothing(subscriber: Subscriber, http: httpx.AsyncClient) -> None:
    payloads = await created(http, {"model": own(), "input": "x"})
    response_id = id_of(payloads[0])
    for subject in (f"rayspond.default.events.{response_id}.response.completed", f"_rs.live.{response_id}"):
        await subscriber.client.publish(subject, b"{}")
        await arrived(subscriber.client)
        assert (
            "permissions violation" in (await asyncio.wait_for(subscriber.refused.get(), PATIENCE_S)).lower()
        )
    assert await replayed(http, response_id) == payloads


def _events(payloads: list[bytes]) -> list[bytes]:
    """What JetStream keeps of them: all but deltas."""
    return [payload for payload in payloads[:-1] if not json.loads(payload)["type"].endswith(".delta")]


async def _fetch(consumer: JetStreamContext.PullSubscription, responses: list[list[bytes]]) -> None:
    """Get everything that JetStream keeps of these responses, in order; repeats count once."""
    expected = {id_of(payloads[0]): _events(payloads) for payloads in responses}
    got: dict[str, dict[str, bytes]] = {response_id: {} for response_id in expected}
    while sum(map(len, got.values())) < sum(map(len, expected.values())):
        for message in await consumer.fetch(10, timeout=PATIENCE_S):
            await message.ack()
            if message.headers["ce-subject"] in got:
                got[message.headers["ce-subject"]][message.headers["ce-id"]] = message.data
    assert {response_id: list(events.values()) for response_id, events in got.items()} == expected
