"""A relay between a log and a subscriber on a real nats-server, for the tests that hurt that server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from actors.relay import messages
from eventstore.nats_bus import NatsLiveBus
from eventstore.nats_config import STREAM, SUBSCRIBER_INBOX
from eventstore.nats_public import JetStreamSettings, NatsPublicBus
from eventstore.relay import Relay
from eventstore.renders import Renders
from tests.integration.nats_server import NatsServer
from tests.nats_barrier import arrived
from tests.patience import PATIENCE_S
from tests.relayed import Shown


def frame(stream: str, number: int) -> bytes:
    """Every third is a delta, and the data says where it is from."""
    kind = "response.output_text.delta" if number % 3 == 1 else "response.in_progress"
    return f'event: {kind}\ndata: {{"is":"{stream}-{number}"}}\n\n'.encode()


def data(shown: Shown, *, deltas: bool = True) -> list[str]:
    """The data of everything that was shown, in the order of the log."""
    frames = [line.split("\n") for line in shown.expected()]
    return [lines[1][len("data: ") :] for lines in frames if deltas or not lines[0].endswith(".delta")]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, as long as tests do."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


def reached(relay: Relay, position: int) -> bool:
    return relay.position >= position


async def ignore(error: Exception) -> None:
    """A client's error that the test does not ask about (the server is away)."""


class Scene:
    """A log, a live bus, and the relay between it and a subscriber."""

    def __init__(
        self, server: NatsServer, bus: NatsLiveBus, shows: Callable[[str, int], bytes] = frame
    ) -> None:
        self.server, self.bus, self.shown = server, bus, Shown(shows)
        self.settings = JetStreamSettings()
        self.heard: list[Msg] = []
        self.news = asyncio.Event()

    @asynccontextmanager
    async def relaying(self) -> AsyncGenerator[Relay]:
        public = NatsPublicBus(self.bus.connection, self.settings)
        render = Renders(self.shown.open_replay).batch
        relay = Relay(self.shown.store, self.bus, public, render, messages)
        task = asyncio.create_task(relay.run())
        try:
            yield relay
        finally:
            task.cancel()
            await asyncio.wait([task])

    @asynccontextmanager
    async def subscriber(self) -> AsyncGenerator[Client]:
        client = await nats.connect(
            self.server.subscriber_url,
            inbox_prefix=SUBSCRIBER_INBOX.encode(),
            error_cb=ignore,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0,
        )

        async def hear(message: Msg) -> None:
            self.heard.append(message)
            self.news.set()

        await client.subscribe("rayspond.>", cb=hear)
        await arrived(client)
        yield client
        await client.close()

    async def commit(self, count: int, live: bool = True) -> None:
        for number in range(count):
            batch = await self.shown.commit(f"resp_{number % 3}", 1 + number % 2)
            if live:
                self.bus.publish(batch)

    def heard_data(self) -> list[str]:
        """What was heard, repeats (the same id) left out."""
        first = {(message.headers or {})["Nats-Msg-Id"]: message.data.decode() for message in self.heard}
        return list(first.values())

    async def kept(self, client: Client) -> list[tuple[str, str]]:
        """(id, data) of all that the stream keeps, as a consumer reads it."""
        stream = client.jetstream()
        found = await stream.stream_info(STREAM)
        consumer = await stream.subscribe("rayspond.>", stream=STREAM, ordered_consumer=True)
        got = [await consumer.next_msg(timeout=PATIENCE_S) for _ in range(found.state.messages)]
        await consumer.unsubscribe()
        return [((message.headers or {})["Nats-Msg-Id"], message.data.decode()) for message in got]

    async def relayed(self, relay: Relay) -> None:
        """Wait until all that was committed is published and captured."""
        last = self.shown.batches[-1].position
        await until(lambda: relay.position == last and relay.capture_lag == 0)
