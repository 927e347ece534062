"""A process's connection to the log: slow, easily broken, and not always clear about a commit's outcome."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from eventstore.errors import OutcomeUnknown, StoreUnavailable
from eventstore.events import Claim, Head, Record, Recorded, Unit
from eventstore.memory import MemoryEventStore
from tests.simulator.chance import EPOCH
from tests.simulator.loop import NOWHERE
from tests.simulator.weather import Weather

T = TypeVar("T")

PAGE = 3
"""Records that are read at a time: few, so that much happens between two pages."""


class Database:
    """The log itself.  What it answers it answers at once; the way there is what takes time."""

    def __init__(self, weather: Weather) -> None:
        loop = asyncio.get_running_loop()
        self.weather = weather
        self.records: dict[str, list[Record]] = {}
        """Every record of every stream as it was appended, also where it was erased later."""
        self.problems: list[str] = []
        """What the log must have refused."""
        self._taken: set[tuple[str, int]] = set()
        self.stood_still = 0.0
        """Seconds for which its clock stood still, because it was away: leases stretch."""
        self.log = MemoryEventStore(
            now=lambda: int((EPOCH + loop.time()) * 1000),
            monotonic=lambda: loop.time() - self.stood_still,
            entropy=os.urandom,
        )

    def obey(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry something out now.  Raises `StoreUnavailable` while it is away."""
        if self.weather.store_is_away:
            work.close()
            raise StoreUnavailable("it is away")
        before = len(self.log._records)
        try:
            work.send(None)
        except StopIteration as done:
            for record in self.log._records[before:]:
                self._keep(record)
            result: T = done.value
            return result
        raise AssertionError("the log in memory waits for nothing")

    def give(self, head: Head) -> None:
        """Note that somebody took a stream: an epoch is one taker's."""
        if (head.stream, head.epoch) in self._taken:
            self.problems.append(f"{head.stream}: epoch {head.epoch} was taken twice")
        self._taken.add((head.stream, head.epoch))

    def _keep(self, record: Record) -> None:
        """Keep what was appended.  What a zombie appends may look innocent later, so it is looked at now."""
        records = self.records.setdefault(record.stream, [])
        epoch = self.log._streams[record.stream].head.epoch
        if record.epoch != epoch:
            self.problems.append(f"{record.stream}: epoch {record.epoch} appended in epoch {epoch}")
        records.append(record)


class SimulatedStore:
    """`EventStore` of one process.  What was sent is carried out also where the process dies meanwhile."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = database.log
        self._weather = database.weather

    @property
    def is_owner(self) -> bool:
        """See `EventStore`."""
        return False

    # -- Reading -------------------------------------------------------------------------------------------

    async def incarnation(self) -> str:
        """See `LogReader`."""
        return await self._ask(self._log.incarnation)

    async def read(self, stream: str, after: int = -1) -> AsyncIterator[Record]:
        """See `LogReader`."""
        while page := await self._ask(partial(self._page, stream, after)):
            for record in page:
                yield record
                after = record.last_version

    async def _page(self, stream: str, after: int) -> list[Record]:
        return [record async for record in self._log.read(stream, after)][:PAGE]

    async def read_all(self, after: int, limit: int = 500) -> Sequence[Record]:
        """See `LogReader`."""
        return await self._ask(lambda: self._log.read_all(after, limit))

    async def head(self, stream: str) -> Head | None:
        """See `LogReader`."""
        return await self._ask(lambda: self._log.head(stream))

    async def versions(self, streams: Collection[str]) -> Mapping[str, int]:
        """See `LogReader`."""
        return await self._ask(lambda: self._log.versions(streams))

    async def heads(self, **options: Any) -> Sequence[Head]:
        """See `LogReader`."""
        return await self._ask(lambda: self._log.heads(**options))

    async def tally(self, **question: Any) -> Mapping[str, int]:
        """See `LogReader`."""
        return await self._ask(lambda: self._log.tally(**question))

    async def stored(self, tenant: str, *, after: int = 0, limit: int = 500) -> tuple[int, int | None]:
        """See `LogReader`."""
        return await self._ask(lambda: self._log.stored(tenant, after=after, limit=limit))

    async def lineage(self, stream: str, kind: str) -> Sequence[tuple[Head, bytes | None]]:
        """See `LogReader`."""
        return await self._ask(lambda: self._log.lineage(stream, kind))

    async def document(self, stream: str, kind: str) -> bytes | None:
        """See `LogReader`."""
        return await self._ask(lambda: self._log.document(stream, kind))

    async def documents(self, tenant: str, streams: Sequence[str], kind: str) -> Mapping[str, bytes]:
        """See `LogReader`."""
        return await self._ask(lambda: self._log.documents(tenant, streams, kind))

    async def beside(self, stream: str) -> Mapping[str, bytes]:
        """See `LogReader`."""
        return await self._ask(lambda: self._log.beside(stream))

    async def claim(self, scope: str, key: str) -> Claim | None:
        """See `LogReader`."""
        return await self._ask(lambda: self._log.claim(scope, key))

    async def salts(self, stream: str) -> Sequence[tuple[int, bytes]]:
        """See `LogReader`."""
        return await self._ask(lambda: self._log.salts(stream))

    async def cursor(self, name: str) -> int:
        """See `LogReader`."""
        return await self._ask(lambda: self._log.cursor(name))

    # -- Writing -------------------------------------------------------------------------------------------

    async def append(self, unit: Unit) -> Sequence[Recorded]:
        """See `EventStore`."""
        return await self._ask(lambda: self._log.append(unit), writes=True)

    async def take(self, stream: str, *, epoch: int, owner: str | None, state: str | None = None) -> Head:
        """See `EventStore`."""

        async def work() -> Head:
            head = await self._log.take(stream, epoch=epoch, owner=owner, state=state)
            self._database.give(head)
            return head

        return await self._ask(work, writes=True)

    async def renew(self, holder: str, ttl: float) -> None:
        """See `EventStore`."""
        await self._ask(lambda: self._log.renew(holder, ttl), writes=True)

    def renew_now(self, holder: str, ttl: float) -> None:
        """The same for a thread, which may block."""
        if self._weather.happens(self._weather.store_away):
            raise StoreUnavailable("the simulation says so")
        self._database.obey(self._log.renew(holder, ttl))

    async def bury(self, holder: str) -> None:
        """See `EventStore`."""
        await self._ask(lambda: self._log.bury(holder), writes=True)

    async def expired(self) -> Sequence[str]:
        """See `EventStore`."""
        return await self._ask(self._log.expired)

    async def save_cursor(self, name: str, position: int) -> None:
        """See `EventStore`."""
        await self._ask(lambda: self._log.save_cursor(name, position), writes=True)

    async def aclose(self) -> None:
        """See `EventStore`."""

    # -- The connection ------------------------------------------------------------------------------------

    async def _ask(self, work: Callable[[], Coroutine[Any, Any, T]], *, writes: bool = False) -> T:
        loop = asyncio.get_running_loop()
        weather = self._weather
        reply: asyncio.Future[T] = loop.create_future()
        unsure = writes and weather.happens(weather.store_unsure)
        happens = not unsure or weather.chance.random() < 0.7

        def fail(error: Exception) -> None:
            if not reply.done():
                reply.set_exception(error)

        def answer(value: T) -> None:
            if not reply.done():
                reply.set_result(value)

        def carry_out() -> None:
            delay = self._way()
            try:
                value = self._database.obey(work())
            except Exception as error:  # noqa: BLE001  (whatever it is, the caller gets it)
                loop.call_later(delay, fail, error, context=NOWHERE)
            else:
                if not unsure:
                    loop.call_later(delay, answer, value, context=NOWHERE)

        if weather.happens(weather.store_away):
            loop.call_later(self._way(), fail, StoreUnavailable("the simulation says so"), context=NOWHERE)
            return await reply
        if unsure:
            error = OutcomeUnknown("the simulation says so")
            loop.call_later(weather.between(0.001, 1.0), fail, error, context=NOWHERE)
        if happens:
            delay = weather.between(0.0001, 2.0) if unsure else self._way()
            loop.call_later(delay, carry_out, context=NOWHERE)
        return await reply

    def _way(self) -> float:
        slow = self._weather.happens(self._weather.store_slow)
        return self._weather.between(0.0001, 1.0 if slow else 0.002)
