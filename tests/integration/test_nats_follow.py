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

FOLLOWERS = 20


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fails after 30 seconds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


class Follower:
    """Follows one channel, and keeps when each frame came."""

    def __init__(self, bus: NatsLiveBus, log: ShownLog) -> None:
        self.bus, self.log = bus, log
        self.numbers: list[int] = []
        self.late = 0.0

    async def run(self, committed: list[float]) -> None:
        async with (
            self.bus.subscribe("s") as live,
            aclosing(follow(LogReplay(self.log), live, silence=1.0)) as pieces,
        ):
            async for piece in pieces:
                if piece is not None:
                    now = time.monotonic()
                    for number in range(piece.first, piece.end + 1):
                        self.numbers.append(number)
                        self.late = max(self.late, now - committed[number])


async def follow_through(folder: Path, disturb: Callable[[NatsServer, int], None]) -> list[Follower]:
    """150 frames at 20 ms while the server is disturbed; the followers, once all have ended."""
    log, committed = ShownLog(), list[float]()
    with NatsServer(folder) as server:
        writer, reader = await NatsLiveBus.connect(server.url), await NatsLiveBus.connect(server.url)
        followers = [Follower(reader, log) for _ in range(FOLLOWERS)]
        tasks = [asyncio.create_task(follower.run(committed)) for follower in followers]
        await reader.connection.flush(5)
        for number in range(150):
            committed.append(time.monotonic())
            writer.publish(log.commit(1, last=number == 149))
            disturb(server, number)
            await asyncio.sleep(0.02)
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
        await writer.aclose()
        await reader.aclose()
    return followers


def check(followers: list[Follower], late: float) -> None:
    for follower in followers:
        assert follower.numbers == list(range(150))
        assert follower.late < late


async def test_a_server_that_dies_and_comes_back_empty(tmp_path: Path) -> None:
    """While it is away, frames come from the log about once a second."""

    def disturb(server: NatsServer, number: int) -> None:
        if number == 40:
            server.kill()
            server.forget()
        elif number == 120:
            server.start()

    check(await follow_through(tmp_path, disturb), late=2.5)


async def test_a_server_that_stands_still(tmp_path: Path) -> None:
    """Nobody closes the connection: silence alone sends followers to the log."""

    def disturb(server: NatsServer, number: int) -> None:
        if number == 40:
            server.pause()
        elif number == 120:
            server.resume()

    check(await follow_through(tmp_path, disturb), late=2.5)


async def test_a_server_that_dies_again_and_again(tmp_path: Path) -> None:
    def disturb(server: NatsServer, number: int) -> None:
        if number % 30 == 10:
            server.kill()
        elif number % 30 == 20:
            server.start()

    check(await follow_through(tmp_path, disturb), late=2.5)
