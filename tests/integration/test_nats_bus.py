"""The live bus on a real nats-server: what only a network can do wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import pytest

from eventstore import nats_config
from eventstore.events import Batch
from eventstore.nats_bus import NatsLiveBus
from eventstore.nats_connection import NatsConnection, connect_options
from eventstore.nats_subjects import UnsafeToken
from tests.integration.nats_server import NatsServer
from tests.patience import PATIENCE_S


def batch(number: int, channel: str = "resp_1", frame: bytes = b"event: a\ndata: {}\n\n") -> Batch:
    return Batch(
        channel=channel,
        first=number,
        count=1,
        frames=(frame,),
        version=number,
        position=number + 1,
        tenant="p",
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, as long as tests do."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


@pytest.fixture
def server(tmp_path: Path) -> Generator[NatsServer]:
    with NatsServer(tmp_path) as running:
        yield running


@pytest.fixture
async def publisher(server: NatsServer) -> AsyncGenerator[NatsLiveBus]:
    bus = await NatsLiveBus.connect(server.url)
    yield bus
    await bus.aclose()


@pytest.fixture
async def listener(server: NatsServer) -> AsyncGenerator[NatsLiveBus]:
    bus = await NatsLiveBus.connect(server.url)
    yield bus
    await bus.aclose()


async def test_nothing_is_missed_from_another_process_once_subscribed(
    publisher: NatsLiveBus, listener: NatsLiveBus
) -> None:
    """Entering `subscribe` waits until the server knows: what is published afterwards arrives, in order."""
    for number in range(200):
        async with listener.subscribe(f"resp_{number}") as heard:
            publisher.publish(batch(number, f"resp_{number}"))
            assert await heard.next(PATIENCE_S) == batch(number, f"resp_{number}")


async def test_everything_of_a_batch_travels(publisher: NatsLiveBus, listener: NatsLiveBus) -> None:
    whole = Batch(
        "resp_1", 7, 3, (b"a", b"", "ü\r\nPUB x 0".encode()), 5, 9, "p-1", last=True, transient=True
    )
    empty = Batch("resp_1", 10, 0, (), 6, 10)
    async with listener.subscribe("resp_1") as heard:
        publisher.publish(whole)
        publisher.publish(empty)
        assert await heard.next(PATIENCE_S) == whole
        assert await heard.next(PATIENCE_S) == empty


async def test_large_frames_stay_behind(publisher: NatsLiveBus, listener: NatsLiveBus) -> None:
    """Over 512 KiB the numbers travel alone."""
    async with listener.subscribe("resp_1") as heard:
        publisher.publish(batch(0, frame=bytes(512 * 1024 + 1)))
        got = await heard.next(PATIENCE_S)
        assert got is not None
        assert (got.frames, got.first, got.count, got.position) == (None, 0, 1, 1)
        publisher.publish(batch(1, frame=bytes(512 * 1024)))
        got = await heard.next(PATIENCE_S)
        assert got is not None
        assert got.frames == (bytes(512 * 1024),)


async def test_a_tap_hears_every_channel(publisher: NatsLiveBus, listener: NatsLiveBus) -> None:
    async with listener.tap() as heard:
        publisher.publish(batch(0, "resp_a"))
        publisher.publish(batch(1, "resp_b"))
        assert await heard.next(PATIENCE_S) == batch(0, "resp_a")
        assert await heard.next(PATIENCE_S) == batch(1, "resp_b")


@pytest.mark.parametrize("name", ["", "*", ">", "a.b", "a b", "a\r\nPUB x 0\r\n", "ü", "x" * 129])
async def test_hostile_names_reach_no_subject(
    name: str, publisher: NatsLiveBus, listener: NatsLiveBus
) -> None:
    """A name that is not one token is refused on subscribing and dropped, never raised, on publishing."""
    with pytest.raises(UnsafeToken):
        listener.subscribe(name)
    async with listener.tap() as heard:
        publisher.publish(batch(0, name))
        publisher.publish(batch(1))
        assert await heard.next(PATIENCE_S) == batch(1)


async def test_what_is_no_batch_counts_as_lost(server: NatsServer, listener: NatsLiveBus) -> None:
    """Garbage on a private subject makes followers read the log; it never raises."""
    stranger = NatsConnection(server.url)
    assert await stranger.open()
    async with listener.subscribe("resp_1") as heard:
        for garbage in (b"", b'{"type":"x"}', b"\x01\x04" + bytes(20), bytes(100)):
            stranger.publish("_rs.live.resp_1", garbage)
            assert await heard.next(5) is None
    await stranger.aclose()


async def test_a_killed_server_comes_back(
    server: NatsServer, publisher: NatsLiveBus, listener: NatsLiveBus
) -> None:
    """Subscriptions survive it, doubt what they missed, and publishing meanwhile neither raises nor waits."""
    async with listener.subscribe("resp_1") as heard:
        publisher.publish(batch(0))
        assert await heard.next(PATIENCE_S) == batch(0)
        server.kill()
        await until(lambda: not publisher.connection.connected and not listener.connection.connected)
        for number in range(1000):
            publisher.publish(batch(number, frame=bytes(100_000)))
        assert publisher.connection.dropped == 1000
        assert await heard.next(0.05) is None
        server.start()
        await until(lambda: publisher.connection.connected and listener.connection.connected)
        assert await heard.next(5) is None
        publisher.publish(batch(1))
        assert await heard.next(PATIENCE_S) == batch(1)


async def test_a_server_that_stands_still_is_noticed(
    server: NatsServer, publisher: NatsLiveBus, listener: NatsLiveBus
) -> None:
    """Memory stays bounded while it stands, both sides notice, and both are back after it goes on."""
    async with listener.subscribe("resp_1") as heard:
        server.pause()
        for number in range(300):
            publisher.publish(batch(number, frame=bytes(100_000)))
            await asyncio.sleep(0)
        assert publisher.connection.dropped > 100
        await until(lambda: not publisher.connection.connected and not listener.connection.connected)
        assert publisher.connection.last_error is not None
        server.resume()
        await until(lambda: publisher.connection.connected and listener.connection.connected)
        async with asyncio.timeout(PATIENCE_S):
            got = None
            while got != batch(1000):
                publisher.publish(batch(1000))
                got = await heard.next(0.2)


async def test_a_slow_follower_hears_that_it_lost(publisher: NatsLiveBus, listener: NatsLiveBus) -> None:
    """On overflow all is dropped and said once; what comes afterwards arrives."""
    async with listener.subscribe("resp_1") as slow, listener.subscribe("resp_1") as quick:
        for number in range(257):
            publisher.publish(batch(number))
            assert await quick.next(PATIENCE_S) == batch(number)
        assert await slow.next(5) is None
        publisher.publish(batch(300))
        assert await slow.next(PATIENCE_S) == batch(300)


async def test_without_a_server_it_works_silently(tmp_path: Path) -> None:
    """A process may start while NATS is away; wrong passwords are told without the password."""
    server = NatsServer(tmp_path)
    bus = await NatsLiveBus.connect(server.url, timeout=0.1)
    async with bus.subscribe("resp_1") as heard:
        bus.publish(batch(0))
        assert await heard.next(0.01) is None
        with server:
            await until(lambda: bus.connection.connected)
            await until(lambda: bus.connection.server_version is not None)
            bus.publish(batch(1))
            while (got := await heard.next(5)) is None:
                pass
            assert got == batch(1)
            wrong = NatsConnection(server.url.replace("runtime-secret", "wrong-password"))
            assert not await wrong.open(0.5)
            assert wrong.last_error is not None
            assert "Authorization Violation" in wrong.last_error
            assert "wrong-password" not in wrong.last_error
            await wrong.aclose()
    await bus.aclose()


async def test_closing_ends_at_any_moment(server: NatsServer) -> None:
    """Also while it connects, or is refused: closing never waits for a server."""
    for delay in range(60):
        refused = NatsConnection(server.url.replace("runtime-secret", "wrong"))
        await refused.open(delay / 5000)
        await asyncio.wait_for(refused.aclose(), PATIENCE_S)


async def test_closing_sends_what_waits(server: NatsServer, listener: NatsLiveBus) -> None:
    async with listener.subscribe("resp_1") as heard:
        bus = await NatsLiveBus.connect(server.url)
        bus.publish(batch(0))
        await bus.aclose()
        assert await heard.next(PATIENCE_S) == batch(0)


def test_urls() -> None:
    """User and password, a token, TLS, several servers; anything else is refused with an example."""
    assert connect_options("nats://u:p%40@h:1") == {"servers": ["nats://h:1"], "user": "u", "password": "p@"}
    assert connect_options("tls://token@h") == {"servers": ["tls://h:4222"], "token": "token"}
    assert connect_options("h:1, [::1]") == {"servers": ["nats://h:1", "nats://[::1]:4222"]}
    with pytest.raises(ValueError, match="nats://user:password@host"):
        connect_options("http://h")


async def test_a_server_with_known_holes_is_reported(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nats_config, "OLDEST_SERVER", (99, 0, 0))
    bus = await NatsLiveBus.connect(server.url)
    assert bus.connection.connected
    assert "use 99.0.0 or a later one" in caplog.text
    await bus.aclose()
