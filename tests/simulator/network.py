"""How processes reach each other: calls that can be lost on either way, and buses that promise nothing."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TypeVar

from actors.hosts import HostDied, HostUnreachable
from eventstore.events import Batch
from eventstore.memory import MemoryEventStore, MemoryLiveBus
from eventstore.ports import BusUnavailable, CaptureUnavailable, Subscription
from tests.simulator.loop import NOWHERE, Process
from tests.simulator.weather import Weather

T = TypeVar("T")


def travelled(value: T) -> T:
    """What arrives of a value that crosses processes."""
    arrived: T = pickle.loads(pickle.dumps(value))
    return arrived


async def call(weather: Weather, target: Process, work: Callable[[], Awaitable[T]]) -> T:
    """Have another process do something and wait for its answer, as Ray's calls do.

    Raises `HostDied` where it is dead or dies meanwhile, `HostUnreachable` where the call or its answer is
    lost, and what the work raises.  Whoever is cancelled leaves; the work goes on.
    """
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[T] = loop.create_future()

    def fail(error: Exception) -> None:
        if not reply.done():
            reply.set_exception(error)

    def died() -> None:
        loop.call_later(weather.between(0, 0.05), fail, HostDied(repr(target)), context=NOWHERE)

    def answer(value: T | None, error: Exception | None) -> None:
        if reply.done():
            return
        if error is not None:
            reply.set_exception(error)
        else:
            reply.set_result(value)  # type: ignore[arg-type]  # None only where the work gave None

    async def serve() -> None:
        value, error = None, None
        try:
            value = await work()
        except Exception as raised:  # noqa: BLE001  (whatever it is, the caller gets it)
            error = raised
        if weather.happens(weather.answers_lost):
            lost = HostUnreachable(f"{target!r}: its answer was lost")
            loop.call_later(weather.between(0, 2), fail, lost, context=NOWHERE)
        else:
            loop.call_later(_way(weather), answer, value, error, context=NOWHERE)

    def arrive() -> None:
        if target.alive:
            target.run(serve())

    if weather.happens(weather.calls_lost):
        error = HostUnreachable(f"{target!r}: the call was lost")
        loop.call_later(weather.between(0, 2), fail, error, context=NOWHERE)
    else:
        loop.call_later(_way(weather), arrive, context=NOWHERE)
        target.on_death(died)
    return await reply


def _way(weather: Weather) -> float:
    slow = weather.happens(weather.calls_slow)
    return weather.between(0.0001, 1.0 if slow else 0.002)


class Ether:
    """Where batches travel from the process that publishes them to every other one."""

    def __init__(self, weather: Weather, truth: MemoryEventStore) -> None:
        self._weather = weather
        self._truth = truth
        self._receivers: dict[Process, MemoryLiveBus] = {}

    def bus(self, process: Process) -> MemoryLiveBus:
        """What a process hears."""
        if process not in self._receivers:
            self._receivers[process] = MemoryLiveBus()
            process.on_death(lambda: self._forget(process))
        return self._receivers[process]

    def _forget(self, process: Process) -> None:
        del self._receivers[process]

    def send(self, batch: Batch) -> None:
        """Tell everybody, or nobody, once or twice, now or later."""
        head = self._truth._streams[batch.channel].head
        assert batch.version <= head.version, f"{batch.channel} was shown before it was committed"
        weather = self._weather
        for bus in self._receivers.values():
            if weather.bus_is_away or weather.happens(weather.bus_loses):
                continue
            for _ in range(2 if weather.happens(weather.bus_repeats) else 1):
                late = weather.happens(weather.bus_delays)
                heard = replace(batch, frames=None) if weather.happens(weather.bus_strips) else batch
                delay = weather.between(0.0001, 1.5 if late else 0.001)
                asyncio.get_running_loop().call_later(delay, bus.publish, heard, context=NOWHERE)


class SimulatedLiveBus:
    """`LiveBus` of one process."""

    def __init__(self, ether: Ether, process: Process) -> None:
        self._ether = ether
        self._heard = ether.bus(process)

    def publish(self, batch: Batch) -> None:
        """See `LiveBus`."""
        self._ether.send(batch)

    def subscribe(self, channel: str, *, ahead: bool = False) -> AbstractAsyncContextManager[Subscription]:
        """See `LiveBus`."""
        return self._heard.subscribe(channel)

    def tap(self) -> AbstractAsyncContextManager[Subscription]:
        """Hear all channels: for the relay."""
        return self._heard.tap()

    async def aclose(self) -> None:
        """See `LiveBus`."""


Message = tuple[str, bytes, Mapping[str, str]]


class SimulatedPublicBus:
    """`PublicBus` with one subscriber of everything, who keeps what comes under a new id."""

    def __init__(self, weather: Weather) -> None:
        self._weather = weather
        self.heard: dict[str, Message] = {}
        """By `Nats-Msg-Id`, in the order of arrival."""

    @property
    def payload_max(self) -> int:
        """See `PublicBus`."""
        return 1 << 20

    async def publish(self, messages: Sequence[Message], *, capture: bool = True) -> None:
        """See `PublicBus`."""
        weather = self._weather
        await asyncio.sleep(weather.between(0.0001, 0.002))
        if weather.bus_is_away or weather.happens(weather.public_fails):
            arrived = weather.chance.randrange(len(messages) + 1)
            self._hear(messages[:arrived])
            await asyncio.sleep(weather.between(0.001, 0.5))
            if capture and not weather.bus_is_away and weather.chance.random() < 0.3:
                self._hear(messages[arrived:])
                raise CaptureUnavailable(min(arrived, len(messages) - 1), "the simulation says so")
            raise BusUnavailable("the simulation says so")
        self._hear(messages)

    def _hear(self, messages: Sequence[Message]) -> None:
        for message in messages:
            known = self.heard.setdefault(message[2]["Nats-Msg-Id"], message)
            assert known == message, f"{message[2]['Nats-Msg-Id']} came twice, and not the same"
