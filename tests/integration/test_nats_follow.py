"""Following over a real nats-server that dies, comes back empty, or stands still: no gap, no repeat."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

from eventstore.follow import follow
from eventstore.nats_bus import NatsLiveBus
from tests.followed import LogReplay, ShownLog
from tests.integration.nats_server import NatsServer
from tests.patience import PATIENCE_S

FOLLOWERS = 20
AWAY_FROM, BACK_AT = 40, 120
"""Which frames the server is away for."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, as long as tests do."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


class Follower:
    """Follows one channel, and keeps the frames in the order they came."""

    def __init__(self, bus: NatsLiveBus, log: ShownLog) -> None:
        self.bus, self.log = bus, log
        self.numbers: list[int] = []

    async def run(self) -> None:
        async with (
            self.bus.subscribe("s") as live,
            aclosing(follow(LogReplay(self.log), live, silence=1.0)) as pieces,
        ):
            async for piece in pieces:
                if piece is not None:
                    self.numbers.extend(range(piece.first, piece.end + 1))


async def follow_through(folder: Path, disturb: Callable[[NatsServer, int], None], *, away: bool) -> None:
    """150 frames at 20 ms while the server is disturbed; where it is `away`, it is so for as long as it takes
    its followers to have the frames from the log.  In the end each has every frame once and in order."""
    log = ShownLog()
    with NatsServer(folder) as server:
        writer, reader = await NatsLiveBus.connect(server.url), await NatsLiveBus.connect(server.url)
        followers = [Follower(reader, log) for _ in range(FOLLOWERS)]
        tasks = [asyncio.create_task(follower.run()) for follower in followers]
        await reader.connection.flush(PATIENCE_S)
        for number in range(150):
            writer.publish(log.commit(1, last=number == 149))
            if away and number == BACK_AT:
                await until(lambda: all(BACK_AT - 1 in follower.numbers for follower in followers))
            disturb(server, number)
            await asyncio.sleep(0.02)
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)
        await writer.aclose()
        await reader.aclose()
    for follower in followers:
        assert follower.numbers == list(range(150))


async def test_a_server_that_dies_and_comes_back_empty(tmp_path: Path) -> None:
    """While it is away, frames come from the log about once a second."""

    def disturb(server: NatsServer, number: int) -> None:
        if number == AWAY_FROM:
            server.kill()
            server.forget()
        elif number == BACK_AT:
            server.start()

    await follow_through(tmp_path, disturb, away=True)


async def test_a_server_that_stands_still(tmp_path: Path) -> None:
    """Nobody closes the connection: silence alone sends followers to the log."""

    def disturb(server: NatsServer, number: int) -> None:
        if number == AWAY_FROM:
            server.pause()
        elif number == BACK_AT:
            server.resume()

    await follow_through(tmp_path, disturb, away=True)


async def test_a_server_that_dies_again_and_again(tmp_path: Path) -> None:
    def disturb(server: NatsServer, number: int) -> None:
        if number % 30 == 10:
            server.kill()
        elif number % 30 == 20:
            server.start()

    await follow_through(tmp_path, disturb, away=False)
