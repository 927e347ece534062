"""Carries out commands to aggregates that no host runs: read, decide, append; again if somebody was faster.

Any host may do it at any time: the version that an append names decides who comes first.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from weakref import WeakValueDictionary

from actors.journal import shows_nothing
from actors.orders import AggregateOrder, RuntimeUnavailable
from eventstore.errors import OutcomeUnknown, StoreUnavailable, WrongExpectedVersion
from eventstore.events import Recorded, Unit
from eventstore.ports import EventStore, LiveBus
from eventstore.unit import place_of
from runtime.aggregate import Aggregate
from runtime.aggregates import AGGREGATES

RACES_MAX: Final = 12
"""How often a command is decided anew because another host was faster, also the creation of a response in a
conversation, or because the outcome is unknown."""
RACE_PAUSE: Final = 0.01
"""Seconds after the first lost race, at most; twice as long after each further one, up to the next."""
RACE_PAUSE_MAX: Final = 0.2
OBEY_MAX: Final = 30.0
"""Seconds for one command, its wait for others included; less than its client waits for the answer."""
UNKNOWN_PAUSE: Final = 0.5
"""Seconds after an append of which nobody knows what became of it."""


class AggregateWriter:
    """One host's hand on such streams."""

    def __init__(
        self,
        store: EventStore,
        bus: LiveBus,
        sleep: Callable[[float], Awaitable[None]],
        aggregates: Mapping[str, Aggregate[Any, Any]] = AGGREGATES,
    ) -> None:
        self._store = store
        self._bus = bus
        self._sleep = sleep
        self._aggregates = aggregates
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def obey(self, order: AggregateOrder) -> None:
        """Carry the order out.  Returns once what follows from it is committed.

        Raises the `Refused` of the aggregate, `ClaimTaken`, `UnknownEvent`, `StoreUnavailable`,
        `OutcomeUnknown` where it may still have been recorded, and `RuntimeUnavailable` where others kept
        being faster.
        """
        # Commands of this host to one stream need not race each other.
        turn = self._turns.setdefault(order.stream, asyncio.Lock())
        try:
            async with asyncio.timeout(OBEY_MAX), turn:
                await self._insist(order)
        except TimeoutError:
            raise OutcomeUnknown(f"{order.stream!r} could not be written for {OBEY_MAX:g} s") from None

    async def _insist(self, order: AggregateOrder) -> None:
        pause = RACE_PAUSE
        unknown: OutcomeUnknown | None = None
        for _ in range(RACES_MAX):
            try:
                return await self._try(self._aggregates[order.category], order)
            except WrongExpectedVersion:
                await self._sleep(pause * random.random())
                pause = min(2 * pause, RACE_PAUSE_MAX)
            except StoreUnavailable as error:
                # Asked again it is recorded once: the ids in it are those of the first time.
                unknown = error if isinstance(error, OutcomeUnknown) else unknown
                if unknown is None:
                    raise
                await self._sleep(UNKNOWN_PAUSE)
        raise unknown or RuntimeUnavailable(f"others kept changing {order.stream!r}")

    async def _try(self, aggregate: Aggregate[Any, Any], order: AggregateOrder) -> None:
        state, version = await aggregate.read(self._store, order.stream)
        events = aggregate.decide(order.command, state)
        if not events:
            return
        state = aggregate.fold(events, state)
        append = aggregate.append(order.stream, version, state, events)
        claims = [] if order.claim is None else [order.claim]
        recorded = await self._commit(Unit([append], claims, aggregate.documents(append, state)))
        self._bus.publish(shows_nothing(recorded, aggregate.label(state).tenant))

    async def _commit(self, unit: Unit) -> Recorded:
        (append,) = unit.appends
        try:
            return (await self._store.append(unit))[0]
        except OutcomeUnknown as error:
            # It is looked for first: decided anew, the same command could mean something else by now.
            try:
                async for record in self._store.read(append.stream, append.expected):
                    if (recorded := place_of(append, record)) is not None:
                        return recorded
                    raise WrongExpectedVersion(append.stream, append.expected, record.last_version) from error
            except StoreUnavailable:
                raise error from None
            raise
