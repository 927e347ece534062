"""What `OneConnection` relies on in nats-py: where a new version changes it, this fails."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from eventstore.nats_client import OUT_BYTES_MAX, OneConnection, WouldWait, at_once
from tests.integration.nats_server import NatsServer
from tests.patience import PATIENCE_S


@pytest.fixture
def server(tmp_path: Path) -> Generator[NatsServer]:
    with NatsServer(tmp_path) as running:
        yield running


class Refusals:
    """What the server refused."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def hear(self, error: Exception) -> None:
        self.told.put_nowait(str(error))


async def opened(url: str, ping_interval: float = 60) -> tuple[OneConnection, Refusals]:
    client, refusals = OneConnection(), Refusals()
    await client.open(
        servers=url, error_cb=refusals.hear, ping_interval=ping_interval, max_outstanding_pings=1
    )
    return client, refusals


@pytest.fixture
async def client(server: NatsServer) -> AsyncGenerator[OneConnection]:
    client, _ = await opened(server.url)
    yield client
    await client.dispose()


class Ear:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Msg] = asyncio.Queue()

    def __call__(self, message: Msg) -> None:
        self.heard.put_nowait(message)

    async def next(self) -> Msg:
        return await asyncio.wait_for(self.heard.get(), PATIENCE_S)


async def test_every_message_of_a_subscription_is_handed_on_at_once(client: OneConnection) -> None:
    """Without a task for it, in order, until it is ended."""
    ear, before = Ear(), len(asyncio.all_tasks())
    subscription = client.hear("a.*", ear)
    assert len(asyncio.all_tasks()) == before
    for number in range(1000):
        assert client.send(f"a.{number}", b"%d" % number, "reply", None)
    for number in range(1000):
        message = await ear.next()
        assert (message.subject, message.data) == (f"a.{number}", b"%d" % number)
        assert (message.reply, message.headers) == ("reply", None)
    client.unhear(subscription)
    client.send("a.late", b"", "", None)
    assert await client.arrived(5)
    assert ear.heard.empty()


async def test_what_is_sent_leaves_with_the_next_turn_of_the_loop(client: OneConnection) -> None:
    client.hear("a", Ear())
    for number in range(3):
        client.send("a", b"%d" % number, "", {"n": str(number)})
    assert client.pending_data_size > 0
    assert client._flush_queue is not None
    assert client._flush_queue.empty(), "nats-py's flusher, a task, is not woken for it"
    await asyncio.sleep(0)
    assert client.pending_data_size == 0


async def test_headers_arrive_as_they_were_given(client: OneConnection) -> None:
    ear = Ear()
    client.hear("a", ear)
    headers = {"Nats-Msg-Id": "1:resp:2", "ce-source": "/rayspond/ä", "ce-type": "response.created"}
    client.send("a", b"body", "", headers)
    message = await ear.next()
    assert (message.headers, message.data) == (headers, b"body")


async def test_a_header_cannot_add_another(client: OneConnection) -> None:
    ear = Ear()
    client.hear("a", ear)
    client.send("a", b"", "", {"ce-type": "x\r\nNats-Msg-Id: forged\r\n\r\nbody"})
    assert (await ear.next()).headers == {"ce-type": "x  Nats-Msg-Id: forged    body"}


async def test_a_pong_comes_after_what_was_sent_before_its_ping(server: NatsServer) -> None:
    """On the wire the PING stands behind the SUB and the PUB, so that its answer proves them."""
    seen = bytearray()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, copy: bytearray) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                copy += data
                writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(
            forward(reader, to_server, seen),
            forward(from_server, writer, bytearray()),
            return_exceptions=True,
        )

    between = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = between.sockets[0].getsockname()[1]
    client, _ = await opened(server.url.replace(str(server.port), str(port)))
    try:
        seen.clear()
        client.hear("a", Ear())
        client.send("b", b"payload", "", None)
        assert await client.arrived(5)
        assert bytes(seen) == b"SUB a  1\r\nPUB b  7\r\npayload\r\nPING\r\n"
    finally:
        await client.dispose()
        between.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.wait(others, timeout=PATIENCE_S)


async def test_a_pong_after_its_timeout_harms_nothing(server: NatsServer, client: OneConnection) -> None:
    ear = Ear()
    client.hear("a", ear)
    assert await client.arrived(5)
    server.pause()
    assert not await client.arrived(0.05)
    server.resume()
    assert await client.arrived(5)
    client.send("a", b"later", "", None)
    assert (await ear.next()).data == b"later"


async def test_nothing_waits_for_a_server_that_stands_still(server: NatsServer) -> None:
    """Sending drops at the bound, subscribing goes on; its end is noticed, and it is dropped at once."""
    client, _ = await opened(server.url, ping_interval=1)
    server.pause()
    sent = 0
    while client.send("a", bytes(100_000), "", None):
        sent += 100_000
        assert sent < OUT_BYTES_MAX + (64 << 20), "the bound does not hold"
        await asyncio.sleep(0)
    for subscription in [client.hear(f"a.{number}", Ear()) for number in range(2000)]:
        client.unhear(subscription)
    assert "stale" in str(await asyncio.wait_for(client.over, PATIENCE_S))
    await asyncio.wait_for(client.dispose(), PATIENCE_S)


async def test_a_server_that_dies_is_noticed_at_once(server: NatsServer, client: OneConnection) -> None:
    """Whoever waits for a pong is told too."""
    server.pause()
    waiting = asyncio.create_task(client.arrived(30))
    await asyncio.sleep(0)
    server.kill()
    await asyncio.wait_for(client.over, PATIENCE_S)
    await client.dispose()
    assert await asyncio.wait_for(waiting, PATIENCE_S) is False


async def test_a_permission_that_is_missing_ends_nothing_and_nonsense_ends_the_connection(
    server: NatsServer,
) -> None:
    client, refusals = await opened(server.subscriber_url)
    client.hear("_rs.>", Ear())
    assert "permissions violation" in await asyncio.wait_for(refusals.told.get(), PATIENCE_S)
    assert await client.arrived(5)
    at_once(client._send_command(b"NONSENSE\r\n"))
    at_once(client._flush_pending())
    assert "unknown protocol" in str(await asyncio.wait_for(client.over, PATIENCE_S))
    await client.dispose()


async def test_what_waits_is_refused() -> None:
    with pytest.raises(WouldWait, match="this version of nats-py"):
        at_once(asyncio.sleep(1))


async def test_a_server_that_says_nothing_is_given_up() -> None:
    """Something else listens on the port."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client, refusals = OneConnection(), Refusals()
        with pytest.raises(TimeoutError):
            await client.open(
                servers=f"nats://127.0.0.1:{silent.getsockname()[1]}",
                error_cb=refusals.hear,
                connect_timeout=0.1,
            )
        await client.dispose()
