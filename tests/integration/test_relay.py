"""The relay on a real nats-server: what subscribers get, and what losing the server, or its stream, does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from actors.relay import messages
from eventstore.nats_bus import NatsLiveBus
from eventstore.nats_config import STREAM, SUBSCRIBER_INBOX
from eventstore.nats_public import JetStreamSettings, NatsPublicBus
from eventstore.relay import Relay
from eventstore.renders import Renders
from tests.integration.nats_server import NatsServer
from tests.relayed import Shown


def frame(stream: str, number: int) -> bytes:
    """Every third is a delta, and the data says where it is from."""
    kind = "response.output_text.delta" if number % 3 == 1 else "response.in_progress"
    return f'event: {kind}\ndata: {{"is":"{stream}-{number}"}}\n\n'.encode()


def data(shown: Shown, *, deltas: bool = True) -> list[str]:
    """The data of everything that was shown, in the order of the log."""
    frames = [line.split("\n") for line in shown.expected()]
    return [lines[1][len("data: ") :] for lines in frames if deltas or not lines[0].endswith(".delta")]


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a condition; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


def reached(relay: Relay, position: int) -> bool:
    return relay.position >= position


async def ignore(error: Exception) -> None:
    """A client's error that the test does not ask about (the server is away)."""


class Scene:
    """A log, a live bus, and the relay between it and a subscriber."""

    def __init__(self, server: NatsServer, bus: NatsLiveBus) -> None:
        self.server, self.bus, self.shown = server, bus, Shown(frame)
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
        await client.flush()
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
        got = [await consumer.next_msg(timeout=5) for _ in range(found.state.messages)]
        await consumer.unsubscribe()
        return [((message.headers or {})["Nats-Msg-Id"], message.data.decode()) for message in got]

    async def relayed(self, relay: Relay) -> None:
        """Wait until all that was committed is published and captured."""
        last = self.shown.batches[-1].position
        await until(lambda: relay.position == last and relay.capture_lag == 0)


@pytest.fixture
def server(tmp_path: Path) -> Generator[NatsServer]:
    with NatsServer(tmp_path) as running:
        yield running


@pytest.fixture
async def scene(server: NatsServer) -> AsyncGenerator[Scene]:
    bus = await NatsLiveBus.connect(server.url)
    yield Scene(server, bus)
    await bus.aclose()


async def test_subscribers_hear_everything_and_the_stream_keeps_the_events(scene: Scene) -> None:
    """In the log's order, byte for byte, each id once; deltas are heard but not kept."""
    async with scene.subscriber() as client, scene.relaying() as relay:
        await scene.commit(100)
        await scene.commit(20, live=False)
        await scene.relayed(relay)
        await until(lambda: len(scene.heard) == len(data(scene.shown)))
        assert [message.data.decode() for message in scene.heard] == data(scene.shown)
        kept = await scene.kept(client)
        assert [text for _, text in kept] == data(scene.shown, deltas=False)
        assert len({identity for identity, _ in kept}) == len(kept)
        first = scene.heard[0]
        assert first.subject == "rayspond.p.events.resp_0.response.in_progress"
        incarnation = await scene.shown.store.incarnation()
        assert first.headers == {
            "Nats-Msg-Id": f"{incarnation}:resp_0:0",
            "ce-specversion": "1.0",
            "ce-id": f"{incarnation}:resp_0:0",
            "ce-source": "/rayspond/p",
            "ce-type": "response.in_progress",
            "ce-subject": "resp_0",
            "ce-datacontenttype": "application/json",
            "ce-position": "1",
            "ce-version": "0",
            "ce-sequencenumber": "0",
        }


async def test_an_event_is_public_soon_after_its_commit(scene: Scene) -> None:
    """Normally within 50 ms; the median, since this machine may be busy."""
    async with scene.subscriber(), scene.relaying() as relay:
        await scene.commit(1)
        await scene.relayed(relay)
        waits = []
        for _ in range(40):
            scene.news.clear()
            began = time.perf_counter()
            await scene.commit(1)
            await asyncio.wait_for(scene.news.wait(), 10)
            waits.append(time.perf_counter() - began)
        assert sorted(waits)[20] < 0.05


async def test_a_relay_that_starts_again_repeats_nothing_in_the_stream(scene: Scene) -> None:
    """Also when it was killed before it saved its cursor."""
    async with scene.subscriber() as client:
        for turn in range(4):
            async with scene.relaying() as relay:
                await scene.commit(50, live=turn % 2 == 0)
                await until(partial(reached, relay, turn * 50 + 1))
            scene.shown.store._cursors["relay"] = turn * 40  # As if it had not been saved since.
        async with scene.relaying() as relay:
            await scene.relayed(relay)
            assert [text for _, text in await scene.kept(client)] == data(scene.shown, deltas=False)
            await until(lambda: scene.heard_data() == data(scene.shown))


async def test_a_relay_that_starts_late_repeats_nothing_in_the_stream(scene: Scene) -> None:
    """The stream's own last message tells what it has, whatever its duplicate window remembers."""
    scene.settings = JetStreamSettings(duplicate_window=0.1)
    async with scene.subscriber() as client:
        async with scene.relaying() as relay:
            await scene.commit(600)
            await scene.relayed(relay)
        await asyncio.sleep(0.3)  # The window passes: this test is about time.
        scene.shown.store._cursors["relay"] = 0
        async with scene.relaying() as relay:
            await scene.commit(20)
            await scene.relayed(relay)
        assert [text for _, text in await scene.kept(client)] == data(scene.shown, deltas=False)


@pytest.mark.parametrize("empty", [False, True], ids=["store kept", "store lost"])
async def test_a_killed_server_loses_no_event_that_comes_later(scene: Scene, empty: bool) -> None:
    """The stream is there again, anew if need be, and nothing was skipped while the server was away."""
    async with scene.subscriber() as client, scene.relaying() as relay:
        await scene.commit(30)
        await scene.relayed(relay)
        scene.server.kill()
        if empty:
            scene.server.forget()
        before = len(data(scene.shown, deltas=False))
        await scene.commit(30)
        await until(lambda: not relay.healthy and relay.lag > 0)
        scene.server.start()
        await scene.relayed(relay)
        await until(lambda: client.is_connected)
        await scene.commit(30)
        await scene.relayed(relay)
        assert relay.healthy
        kept = [text for _, text in await scene.kept(client)]
        assert kept == data(scene.shown, deltas=False)[before if empty else 0 :]
        tail = data(scene.shown)[-30:]
        await until(lambda: scene.heard_data()[-30:] == tail)


async def test_a_server_that_stands_still_delays_and_loses_nothing(scene: Scene) -> None:
    async with scene.subscriber() as client, scene.relaying() as relay:
        await scene.commit(30)
        await scene.relayed(relay)
        scene.server.pause()
        await scene.commit(30)
        await until(lambda: not relay.healthy)
        scene.server.resume()
        await scene.relayed(relay)
        assert [text for _, text in await scene.kept(client)] == data(scene.shown, deltas=False)


async def test_a_deleted_stream_comes_back(scene: Scene) -> None:
    """Somebody deletes it while all runs: noticed by the missing acknowledgement, created again."""
    async with scene.subscriber() as client, scene.relaying() as relay:
        await scene.commit(10)
        await scene.relayed(relay)
        admin = await nats.connect(scene.server.url)
        await admin.jetstream().delete_stream(STREAM)
        await admin.close()
        before = len(data(scene.shown, deltas=False))
        await scene.commit(30)
        await scene.relayed(relay)
        assert [text for _, text in await scene.kept(client)] == data(scene.shown, deltas=False)[before:]


async def test_without_jetstream_listeners_hear_all_the_same(tmp_path: Path) -> None:
    """A server without JetStream, later one with it: listeners miss nothing, the stream gets all of it."""
    jetstream = False

    def render(port: int, store: str) -> str:
        stores = f'jetstream {{ store_dir: "{store}" }}' if jetstream else ""
        users = "{user: runtime, password: runtime-secret}, {user: subscriber, password: subscriber-secret}"
        return f"host: 127.0.0.1\nport: {port}\n{stores}\nauthorization {{ users: [{users}] }}\n"

    with NatsServer(tmp_path, render) as server:
        bus = await NatsLiveBus.connect(server.url)
        scene = Scene(server, bus)
        async with scene.subscriber() as client, scene.relaying() as relay:
            await scene.commit(30)
            await until(lambda: relay.position == 30)
            assert not relay.healthy
            assert (relay.lag, relay.capture_lag) == (0, 30)
            await until(lambda: scene.heard_data() == data(scene.shown))
            jetstream = True
            server.stop()
            server.configure()
            server.start()
            await scene.relayed(relay)
            await until(lambda: relay.healthy and client.is_connected)
            assert [text for _, text in await scene.kept(client)] == data(scene.shown, deltas=False)
        await bus.aclose()


async def test_other_settings_change_the_stream(scene: Scene) -> None:
    """A stream of an earlier start gets the settings of this one, and keeps what it holds."""
    async with scene.subscriber() as client:
        async with scene.relaying() as relay:
            await scene.commit(9)
            await scene.relayed(relay)
        scene.settings = JetStreamSettings(
            subjects=("rayspond.*.events.>", "rayspond.*.deltas.>"), max_age=60, max_bytes=1 << 20
        )
        before = len(data(scene.shown, deltas=False))
        shown = len(data(scene.shown))
        async with scene.relaying() as relay:
            await scene.commit(9)
            await scene.relayed(relay)
        kept = [text for _, text in await scene.kept(client)]
        assert kept == data(scene.shown, deltas=False)[:before] + data(scene.shown)[shown:]
        found = await client.jetstream().stream_info(STREAM)
        assert (found.config.max_age, found.config.max_bytes) == (60, 1 << 20)
