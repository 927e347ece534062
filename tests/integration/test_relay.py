"""The relay on a real nats-server: what subscribers get, and what losing the server, or its stream, does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from functools import partial
from pathlib import Path

import nats
import pytest

from eventstore.nats_bus import NatsLiveBus
from eventstore.nats_config import STREAM
from eventstore.nats_public import JetStreamSettings
from tests.integration.nats_server import NatsServer
from tests.integration.relay_scene import Scene, data, reached, until


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
