"""NATS is halted, loses everything, or its disk fills up, while streams run and JetStream keeps them."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import nats
import psutil
import pytest

from eventstore.nats_config import STREAM, SUBSCRIBER_INBOX
from tests.e2e.conftest import SERVER_LIMIT_S
from tests.e2e.parts import NATS, named
from tests.e2e.upstream import Upstream, own
from tests.e2e.wire import check_whole, created, id_of, text_of
from tests.fakes.script import words
from tests.launching import Instance, until

DISK_BYTES = 24 << 20
STREAMS = 5
PACED = "deltas=60&interval_ms=100"
TEXT = "".join(words(60))
HALTED_S = 5.0
"""Long enough that everybody has given the server up."""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk of its own for what JetStream keeps."""
    if shutil.which("mount") is None:
        pytest.fail("this test needs `mount`, and to be allowed to use it")
    place = tmp_path_factory.mktemp("nats-faults") / "data" / "nats"
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "rayspond", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="module")
def served(disk: Path, upstream: Upstream, environment: dict[str, str]) -> Iterator[Instance]:
    """A server whose NATS keeps its files there."""
    models = upstream.models(disk.parents[1] / "models.yaml")
    options = ("--config", str(models), "--hosts", "1", "--replicas", "1")
    running = Instance(disk.parent, *options, app=None, **environment)
    try:
        yield running.wait_ready()
        running.stop()
    finally:
        running.kill()


@pytest.fixture
def http(served: Instance) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=served.url, timeout=SERVER_LIMIT_S)


async def paced(http: httpx.AsyncClient) -> list[bytes]:
    """A streamed response that takes six seconds, whole; what was shown."""
    shown = await created(http, {"model": own(PACED), "input": "x"})
    assert check_whole(shown)["status"] == "completed"
    assert text_of(shown) == TEXT
    return shown[:-1]


def kept_of(shown: list[bytes]) -> list[bytes]:
    """What of it JetStream keeps: no deltas."""
    return [payload for payload in shown if not json.loads(payload)["type"].endswith(".delta")]


async def kept(instance: Instance, shown: list[bytes]) -> list[bytes]:
    """What JetStream kept of one response, in its own order."""
    client = await nats.connect(instance.runtime["nats_url"], inbox_prefix=SUBSCRIBER_INBOX.encode())
    try:
        subject = f"rayspond.*.events.{id_of(shown[0])}.>"
        consumer = await client.jetstream().subscribe(subject, stream=STREAM, ordered_consumer=True)
        info = await consumer.consumer_info()
        count = (info.num_pending or 0) + (info.delivered.consumer_seq if info.delivered else 0)
        return [(await consumer.next_msg(timeout=10)).data for _ in range(count)]
    finally:
        await client.close()


async def settled(instance: Instance, shown: list[bytes]) -> list[bytes]:
    """The same, once the end of the response is among it."""
    for _ in range(120):
        with suppress(nats.errors.Error):  # The server, or its stream, may not be back yet.
            found = await kept(instance, shown)
            if shown[-1] in found:
                return found
        await asyncio.sleep(0.5)
    raise AssertionError("JetStream never had the end of the response")


async def test_a_server_that_is_halted_loses_and_doubles_nothing(
    served: Instance, http: httpx.AsyncClient
) -> None:
    """Clients notice latency alone; the stream gets what came meanwhile, in order."""
    async with http:
        running = [asyncio.create_task(paced(http)) for _ in range(STREAMS)]
        await asyncio.sleep(2)  # They are in the middle of their answers: this test is about time.
        [server] = named(served, NATS)
        server.suspend()
        try:
            await asyncio.sleep(HALTED_S)
        finally:
            server.resume()
        for shown in await asyncio.gather(*running):
            assert await settled(served, shown) == kept_of(shown)


async def test_a_server_that_lost_everything_goes_on_with_what_comes(
    served: Instance, http: httpx.AsyncClient
) -> None:
    """Killed, and started again with an empty disk: a tail without a hole or a repeat is kept."""
    async with http:
        running = [asyncio.create_task(paced(http)) for _ in range(STREAMS)]
        await asyncio.sleep(2)  # As above.
        launcher = psutil.Process(served.process.pid)
        launcher.suspend()
        try:
            [server] = named(served, NATS)
            server.kill()
            # A process that is halted cannot take note of its child's end.
            await asyncio.to_thread(until, lambda: server.status() == psutil.STATUS_ZOMBIE, "its end")
            shutil.rmtree(served.data_dir / "nats" / "jetstream")
        finally:
            launcher.resume()
        for shown in await asyncio.gather(*running):
            found = await settled(served, shown)
            assert found == kept_of(shown)[-len(found) :]


async def test_a_full_disk_is_noticed_and_healed(
    served: Instance, http: httpx.AsyncClient, disk: Path
) -> None:
    """JetStream takes nothing until nats-server is started anew, which it is once there is room again."""
    async with http:
        ballast = disk / "ballast"
        _fill(ballast)
        shown = []
        async with asyncio.timeout(90):
            while not (warnings := (await http.get("/readyz")).json()["warnings"]):
                shown.append((await created(http, {"model": own("deltas=200"), "input": "x" * 20_000}))[:-1])
        assert "the stream does not take events" in warnings[0]
        assert (await http.get("/readyz")).json()["status"] == "ready"
        shown.append(await paced(http))
        assert "is started anew" not in served.output, "there is no room yet"
        ballast.unlink()
        await asyncio.to_thread(until, lambda: "is started anew" in served.output, "another nats-server")
        for one in shown:
            assert await settled(served, one) == kept_of(one)
        for _ in range(120):
            if not (await http.get("/readyz")).json()["warnings"]:
                return
            await asyncio.sleep(0.5)
        raise AssertionError("it warns for ever")


def _fill(ballast: Path) -> None:
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(bytes(64 * 1024))
        except OSError:
            return
