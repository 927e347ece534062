"""What the embedded server's two users may do.  Subscribers read public subjects, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError

from eventstore.events import Batch
from eventstore.nats_bus import NatsLiveBus
from eventstore.nats_config import OLDEST_SERVER, STREAM, SUBSCRIBER_INBOX, render
from eventstore.nats_connection import NatsConnection
from eventstore.nats_public import NatsPublicBus
from eventstore.nats_subjects import UnsafeToken
from tests.integration.nats_server import NatsServer
from tests.nats_barrier import arrived
from tests.patience import PATIENCE_S

SUBJECT = "rayspond.p.events.resp_1.response.created"


@pytest.fixture
def server(tmp_path: Path) -> Generator[NatsServer]:
    with NatsServer(tmp_path) as running:
        yield running


@pytest.fixture
async def runtime(server: NatsServer) -> AsyncGenerator[NatsLiveBus]:
    bus = await NatsLiveBus.connect(server.url)
    await NatsPublicBus(bus.connection).publish([(SUBJECT, b"{}", {"Nats-Msg-Id": "1"})])
    yield bus
    await bus.aclose()


class Refusals:
    """What the server refused a client."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def hear(self, error: Exception) -> None:
        self.told.put_nowait(str(error))

    async def next(self) -> str:
        return await asyncio.wait_for(self.told.get(), PATIENCE_S)


@pytest.fixture
def refusals() -> Refusals:
    return Refusals()


@pytest.fixture
async def subscriber(server: NatsServer, refusals: Refusals) -> AsyncGenerator[Client]:
    client = await nats.connect(
        server.subscriber_url, inbox_prefix=SUBSCRIBER_INBOX.encode(), error_cb=refusals.hear
    )
    yield client
    await client.close()


@pytest.mark.parametrize(
    ("subject", "queue"),
    [
        (">", ""),
        ("*.*.*", ""),
        ("_rs.>", ""),
        ("_rs.live.resp_1", ""),
        ("_rs.live.*", "group"),
        (">", "group"),
        ("$SYS.>", ""),
        ("$JS.API.>", ""),
        ("_INBOX.>", ""),
    ],
)
async def test_a_subscriber_hears_nothing_private(
    runtime: NatsLiveBus, subscriber: Client, refusals: Refusals, subject: str, queue: str
) -> None:
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    await subscriber.subscribe(subject, queue=queue, cb=hear)
    assert "permissions violation for subscription" in await refusals.next()
    runtime.publish(Batch("resp_1", 0, 1, (b"secret",), 0, 1))
    assert await runtime.connection.flush(5)
    await arrived(subscriber)
    assert not heard


@pytest.mark.parametrize(
    "subject",
    [
        SUBJECT,
        "_rs.live.resp_1",
        f"$JS.API.STREAM.CREATE.{STREAM}",
        f"$JS.API.STREAM.DELETE.{STREAM}",
        f"$JS.API.STREAM.PURGE.{STREAM}",
        f"$JS.API.STREAM.UPDATE.{STREAM}",
        f"$JS.API.STREAM.RESTORE.{STREAM}",
        "$JS.API.STREAM.CREATE.OTHER",
        "$JS.API.CONSUMER.CREATE.OTHER",
        "$SYS.REQ.SERVER.PING",
        "_INBOX.somebody.1",
        "anything",
    ],
)
async def test_a_subscriber_publishes_nothing(
    runtime: NatsLiveBus, subscriber: Client, refusals: Refusals, subject: str
) -> None:
    await subscriber.publish(subject, b"{}")
    assert "permissions violation for publish" in await refusals.next()


async def test_a_subscriber_consumes_the_stream(runtime: NatsLiveBus, subscriber: Client) -> None:
    """Ordered, durable and unnamed consumers; core subscriptions; nothing of it is refused."""
    stream = subscriber.jetstream()
    ordered = await stream.subscribe("rayspond.p.events.>", stream=STREAM, ordered_consumer=True)
    assert (await ordered.next_msg(timeout=PATIENCE_S)).subject == SUBJECT
    durable = await stream.pull_subscribe("rayspond.*.events.>", durable="mine", stream=STREAM)
    for message in await durable.fetch(1, timeout=PATIENCE_S):
        await message.ack()
    with pytest.raises(NatsTimeoutError):
        await durable.fetch(1, timeout=0.2)
    assert (await stream.consumer_info(STREAM, "mine")).num_ack_pending == 0
    core = await subscriber.subscribe("rayspond.p.events.resp_1.>")
    await arrived(subscriber)
    assert runtime.connection.publish(SUBJECT, b"again")
    assert (await core.next_msg(timeout=PATIENCE_S)).data == b"again"


async def test_a_consumer_that_delivers_into_the_private_tier_tells_followers_nothing(
    runtime: NatsLiveBus, subscriber: Client
) -> None:
    """The server does not check where consumers deliver to, so followers must not believe what comes."""
    forged = {"Nats-Msg-Id": "2"}
    async with runtime.subscribe("resp_1") as heard:
        await NatsPublicBus(runtime.connection).publish([(SUBJECT, b"\x01\x04" + bytes(60), forged)])
        await subscriber.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.mine", b'{"batch":10,"no_wait":true}', "_rs.live.resp_1"
        )
        await arrived(subscriber)
        assert await heard.next(0.3) is None
        runtime.publish(Batch("resp_1", 0, 1, (b"true",), 0, 1))
        while (got := await heard.next(5)) is None:
            pass
        assert got.frames == (b"true",)


@pytest.mark.parametrize("login", ["", "subscriber:wrong@", "nobody:x@", "token@"])
async def test_nobody_else_is_let_in(server: NatsServer, login: str) -> None:
    stranger = NatsConnection(f"nats://{login}127.0.0.1:{server.port}")
    await stranger.open(0.01)
    for _ in range(500):
        if stranger.last_error is not None:
            break
        await asyncio.sleep(0.01)
    assert "Authorization Violation" in (stranger.last_error or "")
    assert not stranger.connected
    await asyncio.wait_for(stranger.aclose(), PATIENCE_S)


async def test_the_server_is_not_one_of_the_versions_with_holes(runtime: NatsLiveBus) -> None:
    version = runtime.connection.server_version
    assert version is not None
    assert version >= OLDEST_SERVER


def test_it_listens_on_loopback_only(server: NatsServer) -> None:
    """One port, on 127.0.0.1: no monitoring, no websocket, no cluster."""
    text = render(server.port, str(server.store), "a", "b")
    assert "host: 127.0.0.1" in text
    for word in ("http", "websocket", "cluster", "leafnodes", "no_auth_user"):
        assert word not in text


@pytest.mark.parametrize("password", ["", 'x"y', "a b", "a@b", "a\nb"])
def test_passwords_that_need_quoting_are_refused(password: str) -> None:
    with pytest.raises(UnsafeToken):
        render(4222, "store", password, "ok")
