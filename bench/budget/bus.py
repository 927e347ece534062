"""What NATS costs those who publish: a host its live frames, the supervisor's relay the public subjects."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from actors import relay
from bench.budget.cost import Job, Row, cost_of, cpu_of
from bench.budget.sample import Sample
from eventstore.events import Batch
from eventstore.nats_bus import NatsLiveBus
from eventstore.nats_connection import NatsConnection
from eventstore.nats_public import NatsPublicBus
from eventstore.relay import Message

JOBS: Final = 64
TOGETHER: Final = 16
"""Commits of one window of the relay, as under load."""
_INCARNATION: Final = "0123456789abcdef"


async def rows(sample: Sample, url: str) -> list[Row]:
    """Their rows, over connections to the server at `url`."""
    live, public = NatsConnection(url), NatsConnection(url)
    for connection in (live, public):
        if not await connection.open():
            raise RuntimeError(f"NATS is away: {connection.last_error}")
    try:
        return [
            await _live_row(sample, NatsLiveBus(live)),
            *await _public_rows(sample, NatsPublicBus(public)),
        ]
    finally:
        await live.aclose()
        await public.aclose()


async def _live_row(sample: Sample, bus: NatsLiveBus) -> Row:
    async def publish(batches: Sequence[Batch]) -> None:
        for batch in batches:
            bus.publish(batch)
            await asyncio.sleep(0)  # It is sent with the loop's next turn.

    async def cpu(batches: Sequence[Batch]) -> float:
        return (await cost_of(lambda: [publish(batches) for _ in range(JOBS)])).cpu

    response = await cpu([commit.batch for commit in sample.response])
    return Row("host", "live frames to NATS", response=response, delta=await cpu([sample.delta.batch]))


async def _public_rows(sample: Sample, bus: NatsPublicBus) -> list[Row]:
    windows = _Windows(bus)
    both = ([commit.batch for commit in sample.response], [sample.delta.batch])
    compose = [sum(cpu_of(partial(relay.messages, batch, _INCARNATION)) for batch in some) for some in both]
    alone = [await windows.cpu(some, 1) for some in both]
    together = [await windows.cpu(some, TOGETHER) for some in both]
    row = partial(Row, "supervisor")
    name = "public subjects: publish, acknowledged"
    return [
        row("public subjects: compose", response=compose[0], delta=compose[1]),
        row(f"{name}, alone", response=alone[0], delta=alone[1]),
        row(f"{name}, {TOGETHER} at a time", response=together[0], delta=together[1], aside=True),
    ]


class _Windows:
    """Messages as the relay publishes them: in the order of the log, else they count as captured already."""

    def __init__(self, bus: NatsPublicBus) -> None:
        self._bus = bus
        self._positions = itertools.count(1)
        self._incarnation = os.urandom(8).hex()  # A log of its own, whatever was published before.

    async def cpu(self, batches: Sequence[Batch], together: int) -> float:
        """What the batches of one response cost, each in a window that it shares with other responses'."""

        def jobs() -> list[Job]:
            return [
                self._publish([self._window(batch, together) for batch in batches])
                for _ in range(JOBS // together)
            ]

        return (await cost_of(jobs)).cpu / together

    async def _publish(self, windows: Sequence[Sequence[Message]]) -> None:
        for window in windows:
            await self._bus.publish(window)

    def _window(self, batch: Batch, together: int) -> Sequence[Message]:
        return [
            message
            for position in itertools.islice(self._positions, together)
            for message in relay.messages(
                replace(batch, channel=f"resp_{position:032x}", position=position), self._incarnation
            )
        ]
