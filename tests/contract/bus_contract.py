"""What a live bus's contract is tested with.  An adapter joins the suite by one line in `BUSES`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from eventstore.memory import MemoryLiveBus
from eventstore.nats_bus import NatsLiveBus
from eventstore.ports import LiveBus
from tests.integration.nats_server import NatsServer

PATIENCE = 5.0
"""Seconds: far more than a bus on this machine takes to deliver, so that only a loss runs into it."""


@dataclass(frozen=True)
class LiveBuses:
    """One bus, from both sides; on a network each has a connection of its own."""

    writer: LiveBus
    reader: LiveBus


@asynccontextmanager
async def memory(folder: Path) -> AsyncGenerator[LiveBuses]:
    bus = MemoryLiveBus()
    yield LiveBuses(bus, bus)
    await bus.aclose()


@asynccontextmanager
async def nats(folder: Path) -> AsyncGenerator[LiveBuses]:
    with NatsServer(folder) as server:
        writer, reader = await NatsLiveBus.connect(server.url), await NatsLiveBus.connect(server.url)
        yield LiveBuses(writer, reader)
        await writer.aclose()
        await reader.aclose()


BUSES: dict[str, Callable[[Path], AbstractAsyncContextManager[LiveBuses]]] = {"memory": memory, "nats": nats}
