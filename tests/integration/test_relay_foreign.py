"""The relay on a server that is not ours: it takes only short messages, or its disk is full."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from actors.relay import HEADER_BYTES_MAX
from eventstore import nats_config
from eventstore.nats_bus import NatsLiveBus
from tests.integration.nats_server import RUNTIME_PASSWORD, SUBSCRIBER_PASSWORD, NatsServer
from tests.integration.relay_scene import Scene, data, until
from tests.patience import PATIENCE_S

DISK_BYTES = 12 << 20


def limited(port: int, store: str) -> str:
    """A server that takes 16 KiB a message."""
    text = nats_config.render(port, store, RUNTIME_PASSWORD, SUBSCRIBER_PASSWORD)
    assert "max_payload: 1MB" in text
    return text.replace("max_payload: 1MB", "max_payload: 16384")


@pytest.mark.parametrize("room", [0, 1], ids=["fits", "does not fit"])
async def test_what_the_server_does_not_take_is_referred_to(tmp_path: Path, room: int) -> None:
    """Its own bound counts, not ours; and what comes behind is not held up."""
    size = 16384 - HEADER_BYTES_MAX - len('{"is":""}') + room
    with NatsServer(tmp_path, limited) as server:
        bus = await NatsLiveBus.connect(server.url)
        scene = Scene(server, bus, lambda stream, number: large(number, size))
        async with scene.subscriber() as client, scene.relaying() as relay:
            await scene.commit(1)
            await scene.commit(5, live=False)
            await scene.relayed(relay)
            await until(lambda: len(scene.heard) == len(data(scene.shown)))
            texts = [message.data for message in scene.heard]
            referred = ["ce-dataref" in (message.headers or {}) for message in scene.heard]
            assert referred == [bool(room)] * len(texts)
            assert {len(text) for text in texts} == {0 if room else 16384 - HEADER_BYTES_MAX}
            assert len(await scene.kept(client)) == len(texts)
            assert bus.connection.connected
            assert relay.healthy
        await bus.aclose()


def large(number: int, size: int) -> bytes:
    return f'event: response.in_progress\ndata: {{"is":"{str(number % 10) * size}"}}\n\n'.encode()


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A disk of 12 MiB of its own."""
    if shutil.which("mount") is None:
        pytest.fail("this test needs `mount`, and to be allowed to use it")
    disk = tmp_path / "store"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "rayspond", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def test_a_full_disk_stops_the_stream_but_no_listener(tmp_path: Path, small_disk: Path) -> None:
    """With room again the stream takes nothing until nats-server is started anew; then it gets it all."""
    with NatsServer(tmp_path) as server:
        bus = await NatsLiveBus.connect(server.url)
        scene = Scene(server, bus)
        async with scene.subscriber() as client, scene.relaying() as relay:
            await scene.commit(30)
            await scene.relayed(relay)
            ballast = small_disk / "ballast"
            _fill(ballast)
            async with asyncio.timeout(PATIENCE_S):
                while relay.capture_away == 0:
                    await scene.commit(30)
                    await asyncio.sleep(0.05)
            committed = scene.shown.batches[-1].position
            await until(lambda: relay.position == committed)
            assert relay.problem is not None
            assert relay.problem.startswith("the stream does not take events")
            assert bus.connection.connected
            await until(lambda: scene.heard_data() == data(scene.shown))
            ballast.unlink()
            server.stop()
            server.start()
            await scene.relayed(relay)
            assert relay.capture_away == 0
            assert [text for _, text in await scene.kept(client)] == data(scene.shown, deltas=False)
        await bus.aclose()


def _fill(ballast: Path) -> None:
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(bytes(64 * 1024))
        except OSError:
            return
