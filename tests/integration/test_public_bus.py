"""What one acknowledgement of a real nats-server proves, and what a stream lacks that takes only some."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from eventstore.nats_bus import NatsLiveBus
from eventstore.nats_config import STREAM
from eventstore.nats_public import ID, NUMBER, POSITION, Message, NatsPublicBus
from eventstore.ports import CaptureUnavailable
from tests.integration.nats_server import NatsServer

LARGE = 64 * 1024


@pytest.fixture
async def live(tmp_path: Path) -> AsyncGenerator[NatsLiveBus]:
    with NatsServer(tmp_path) as server:
        bus = await NatsLiveBus.connect(server.url)
        yield bus
        await bus.aclose()


def message(position: int, kind: str = "events", size: int = 2) -> Message:
    headers = {ID: f"log:{position}", POSITION: str(position), NUMBER: "0"}
    return f"rayspond.p.{kind}.resp_1.x", b"x" * size, headers


def stream_of(live: NatsLiveBus) -> JetStreamContext:
    stream = live.connection.jetstream(5.0)
    assert stream is not None
    return stream


async def kept(live: NatsLiveBus) -> Sequence[str]:
    stream = stream_of(live)
    count = (await stream.stream_info(STREAM)).state.messages
    found = [await stream.get_msg(STREAM, number) for number in range(1, count + 1)]
    return [(one.headers or {})[ID] for one in found]


async def largest(live: NatsLiveBus, size: int) -> None:
    """From now on the stream refuses what is larger; -1 for no limit."""
    stream = stream_of(live)
    config = (await stream.stream_info(STREAM)).config
    await stream.update_stream(config.evolve(max_msg_size=size))


async def test_one_answer_stands_for_a_window(live: NatsLiveBus) -> None:
    public = NatsPublicBus(live.connection)
    answers: list[str] = []
    live.connection.subscribe("_INBOX.*.ack.>", lambda answer: answers.append(answer.subject))
    for first in (1, 101):
        window = [message(first + number, "deltas" if number % 2 else "events") for number in range(100)]
        await public.publish(window)
    assert await live.connection.flush(5.0)
    assert [subject.rsplit(".", 1)[1] for subject in answers] == ["98", "98"]
    assert await kept(live) == [f"log:{position}" for position in range(1, 201, 2)]


async def test_what_is_refused_in_the_middle_is_named_and_nothing_behind_it_is_kept(
    live: NatsLiveBus,
) -> None:
    public = NatsPublicBus(live.connection)
    await public.publish([message(1)])
    await largest(live, LARGE // 2)
    window = [message(2), message(3, "deltas"), message(4), message(5, size=LARGE), message(6), message(7)]
    with pytest.raises(CaptureUnavailable) as refused:
        await public.publish(window)
    assert refused.value.first == 3
    assert await kept(live) == ["log:1", "log:2", "log:4"]
    with pytest.raises(CaptureUnavailable):  # Who offers the first that is missing hears that it still is.
        await public.publish([window[3]])
    await largest(live, -1)
    await public.publish(window[3:])
    assert await kept(live) == ["log:1", "log:2", "log:4", "log:5", "log:6", "log:7"]


async def test_a_window_that_the_stream_has_already_needs_no_answer(live: NatsLiveBus) -> None:
    """A relay that was killed publishes it again, for listeners who may have missed it."""
    window = [message(position) for position in (1, 2, 3)]
    await NatsPublicBus(live.connection).publish(window)
    heard: list[str] = []
    live.connection.subscribe("rayspond.>", lambda one: heard.append((one.headers or {})[ID]))
    await NatsPublicBus(live.connection).publish([*window, message(4)])
    assert await live.connection.flush(5.0)
    assert heard == ["log:1", "log:2", "log:3", "log:4"]
    assert await kept(live) == heard
