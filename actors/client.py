"""What a Serve replica (or any other process in the cluster) asks of the runtime."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from uuid import uuid4

from actors.background import end
from actors.config import ClusterConfig
from actors.hosts import HostDied, HostUnknown, SupervisorHandle
from actors.listener import Listener
from actors.orders import (
    AggregateOrder,
    CancelOrder,
    CreateOrder,
    DeleteOrder,
    HostInfo,
    Moved,
    Order,
    Overloaded,
    PlacementError,
    Running,
    RuntimeUnavailable,
    UnknownResponse,
)
from actors.placement import Placement
from actors.quotas import Ask, Lease
from eventstore.errors import EventStoreError
from eventstore.glances import Glances
from eventstore.meter import METER, Figures
from eventstore.ports import LiveBus, LogReader
from runtime.response.commands import Create
from runtime.response.standing import RUNNING

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds a command looks for a living host before its client hears 503."""
ANSWER_MAX = 45.0
"""Seconds that a host may take to carry out one command, a fresh one's start included."""
SILENT_MAX = 10.0
"""Seconds without an answer of the supervisor after which a replica no longer calls itself ready; Ray brings
a supervisor back in less."""
REPORT_INTERVAL = 5.0
"""Seconds between two reports of what a replica counted."""
WATCH_TIMEOUT = 1.0
"""Seconds of the long poll: how old a replica's view of the hosts' loads may be."""


class RuntimeClient:
    """Places commands on hosts.  Holds no durable state; every method may be called concurrently."""

    def __init__(
        self, config: ClusterConfig, reader: LogReader, bus: LiveBus, supervisor: SupervisorHandle
    ) -> None:
        self._config = config
        self.reader = reader
        self.glances = Glances(reader)
        self.bus = bus
        self._supervisor = supervisor
        self._placement = Placement()
        self._watching: asyncio.Task[None] | None = None
        self._known = asyncio.Event()
        self._heard = 0.0
        self.process = f"api-{uuid4().hex[:8]}"
        """How this process is named where it is counted."""
        self._reported = -REPORT_INTERVAL

    async def start(self) -> None:
        """Begin to watch the hosts; the first commands wait until some are known."""
        self._watching = asyncio.create_task(self._watch(), name="watch hosts")

    async def aclose(self) -> None:
        """Stop watching."""
        if self._watching is not None:
            await end(self._watching)

    async def create(self, command: Create) -> None:
        """Create a response.  Returns once its first event is committed.

        Raises `Overloaded`, `RuntimeUnavailable`, or what the actor refused it for
        (`runtime.response.errors`).
        """
        isolation = command.agent.get("isolation") or self._config.isolation
        command = replace(command, agent={**command.agent, "isolation": isolation})
        order = CreateOrder(command)
        if isolation == "shared":
            await self._until_placed(lambda: self._send_shared(order))
        else:
            await self._until_placed(lambda: self._send_reserved(order, isolation))

    async def cancel(self, response_id: str, by: str) -> None:
        """Cancel a response.  Returns once a terminal event is committed, whoever's it is.

        Raises `UnknownResponse`, `RuntimeUnavailable`.
        """
        await self._until_placed(lambda: self._send_to_owner(response_id, CancelOrder(response_id, by)))

    async def delete(self, response_id: str, by: str) -> None:
        """Erase a response, cancelling it first where it runs.  Raises as `cancel`."""
        await self._until_placed(lambda: self._send_to_owner(response_id, DeleteOrder(response_id, by)))

    async def change(self, order: AggregateOrder) -> None:
        """Have any host carry out a command to an aggregate.  Returns once what follows is committed.

        Raises what the aggregate refuses it for (`runtime.aggregate.Refused`), `ClaimTaken`,
        `RuntimeUnavailable`.
        """
        await self._until_placed(lambda: self._send_shared(order))

    async def lend(self, ask: Ask) -> Lease:
        """A slice of a project's budget.  Raises `RuntimeUnavailable`."""
        try:
            return await self._supervisor.lend(ask)
        except HostDied as error:
            raise RuntimeUnavailable(str(error)) from error

    async def attend(self, response_id: str, listener: str, left: asyncio.Event, grace: float | None) -> None:
        """Tell whoever runs a foreground response that somebody listens to it, and once `left` is set that
        the listener left, `grace` seconds before it may end; nothing of that without a grace.

        One that waits for a slot is told as soon as it runs; the time it waited counts.  Whoever takes it
        over is told again who listens, and that its creator left.  Returns once it is over, or nobody needs
        to know any more.
        """
        listening = Listener(response_id, listener, left, grace)
        while not listening.is_done():
            with suppress(EventStoreError, HostDied, PlacementError, TimeoutError):
                if await self._tell(listening):
                    return
            await listening.pause()

    async def running(self) -> list[tuple[HostInfo, list[Running]]]:
        """Every host with the responses that run on it.  Raises `RuntimeUnavailable`."""
        try:
            return await self._supervisor.running()
        except HostDied as error:
            raise RuntimeUnavailable(str(error)) from error

    async def figures(self) -> list[tuple[str, Figures]]:
        """What every process of the cluster counted, by its name; without the supervisor, only this one."""
        try:
            await self._supervisor.report(self.process, METER.figures())
            return await self._supervisor.figures()
        except HostDied as error:
            log.info("figures of this process only: %s", error)
            return [(self.process, METER.figures())]

    async def warnings(self) -> list[str]:
        """What is not as it should be although responses are served, in sentences."""
        try:
            return await self._supervisor.warnings()
        except HostDied as error:
            return [str(error)]

    async def ready(self) -> list[str]:
        """What keeps responses from being created, in sentences; empty when nothing does."""
        silent = asyncio.get_running_loop().time() - self._heard
        if self._known.is_set() and silent > SILENT_MAX:
            return [f"the supervisor has not answered for {silent:.0f} s"]
        if not self._known.is_set() or not len(self._placement):
            return ["no host is warm yet"]
        return []

    # -- Ways ----------------------------------------------------------------------------------------------

    async def _send_shared(self, order: Order) -> Exception | None:
        name = self._placement.least_loaded()
        if name is None:
            raise HostDied("no host is known")
        return await self._placement.send(name, order)

    async def _send_reserved(self, order: CreateOrder, isolation: str) -> Exception | None:
        command = order.command
        try:
            name = await self._supervisor.reserve(command.id, isolation, command.request.model)
        except Overloaded:
            # Any host queues it, or refuses it; it is started, on a host of its kind, when one is free.
            return await self._send_shared(replace(order, command=replace(command, queued=True)))
        return await self._send_to(name, order)

    async def _send_to_owner(self, response_id: str, order: Order) -> Exception | None:
        head = await self.reader.head(response_id)
        if head is None:
            raise UnknownResponse(response_id)
        if head.owner is not None:
            with suppress(HostUnknown):
                return await self._send_to(head.owner, order)
        return await self._send_shared(order)

    async def _send_to(self, name: str, order: Order) -> Exception | None:
        """Have that host carry it out.  Raises `HostUnknown` where the supervisor knows none of that name."""
        if self._placement.knows(name):
            return await self._placement.send(name, order)
        # A dedicated one, or one that is too new to have been heard of.
        handle = await self._supervisor.host(name)
        if handle is None:
            raise HostUnknown(f"{name} is not known any more")
        return (await handle.obey([order])).outcomes[0]

    async def _tell(self, listening: Listener) -> bool:
        """Tell the host that runs the response what is new of a listener; whether no more is to be told."""
        if self._placement.knows(listening.host):
            return False
        head = await self.reader.head(listening.response_id)
        if head is None:
            return listening.waited > ANSWER_MAX  # Its creation was not even committed.
        if head.state not in RUNNING:
            return True
        if (order := listening.news(head)) is not None:
            async with asyncio.timeout(PATIENCE):
                if await self._send_to_owner(listening.response_id, order) is None:
                    listening.note_told(head, order)
        return listening.is_done()

    async def _until_placed(self, send: Callable[[], Awaitable[Exception | None]]) -> None:
        """Try until a living host has carried the order out or refused it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        pause = 0.02
        while True:
            refusal: Exception | None
            try:
                async with asyncio.timeout(ANSWER_MAX):
                    refusal = await send()
            except TimeoutError:
                raise RuntimeUnavailable(f"its host has not answered for {ANSWER_MAX:g} s") from None
            except HostDied as error:
                refusal = RuntimeUnavailable(str(error))
                log.info("command not placed: %s", error)
            if refusal is None:
                return
            if not isinstance(refusal, RuntimeUnavailable | Moved):
                raise refusal
            if loop.time() + pause > deadline:
                raise RuntimeUnavailable(str(refusal)) if isinstance(refusal, Moved) else refusal
            # Jitter, so that the commands of a lost host do not all come back at once.
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 1.0)

    async def _watch(self) -> None:
        version = -1
        pause = 0.05
        while True:
            try:
                version, hosts = await self._supervisor.watch(version, WATCH_TIMEOUT)
            except HostDied as error:
                log.info("%s", error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
                continue
            pause = 0.05
            self._heard = asyncio.get_running_loop().time()
            self._placement.update(hosts)
            if hosts:
                self._known.set()
            await self._report()

    async def _report(self) -> None:
        """Tell the supervisor now and then what this process counted."""
        if self._heard - self._reported >= REPORT_INTERVAL:
            self._reported = self._heard
            with suppress(HostDied):
                await self._supervisor.report(self.process, METER.figures())
