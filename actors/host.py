"""The host: a process in which response actors run, each in a slot.  No Ray here.

It obeys orders, keeps count of its slots and hands work that it cannot take to the durable queue: a stream in
state `queued` that nobody owns.  It decides nothing about other hosts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from time import time
from typing import Any

from actors.aggregate_writer import AggregateWriter
from actors.attendance import Attendance
from actors.backlog import fair_page
from actors.orders import (
    AggregateOrder,
    Answer,
    AttachOrder,
    CancelOrder,
    CreateOrder,
    DeleteOrder,
    DetachOrder,
    HostInfo,
    Moved,
    Order,
    Overloaded,
    PlacementError,
    ResumeOrder,
    Running,
    UnknownResponse,
)
from actors.response_actor import ActivationLost, ActorPorts, ResponseActor
from eventstore.errors import EventStoreError, Fenced
from eventstore.events import Head
from eventstore.meter import METER
from runtime.aggregate import Refused
from runtime.catalog import shared
from runtime.response.commands import Create
from runtime.response.errors import ResponseError
from runtime.response.standing import RESPONSES, WAITING, in_queue, is_background

log = logging.getLogger(__name__)

_TAKEOVERS = METER.counter("takeovers", "Responses that went on here after another activation of them ended.")
_REFUSED = METER.counter("orders_refused", "Orders that a host refused, by the reason's name.", "reason")

CLIENT_GONE = "client_gone"
"""Who cancelled a response to which nobody listened any more."""
GUESTS = 8
"""For so many slots there is one more, for clients of projects that run nothing on the host: no flood of
others keeps them waiting."""
PULL_PAGE = 16
"""Responses that wait and are looked at when a slot gets free."""


class ActorHost:
    """Runs response actors in `slots` slots."""

    def __init__(self, ports: ActorPorts, *, isolation: str, slots: int, queue_limit: int) -> None:
        self._ports = ports
        self._isolation = isolation
        self._slots = slots
        self._queue_limit = queue_limit
        self._actors: dict[str, ResponseActor] = {}
        self._running: dict[str, Running] = {}
        self._guests: set[str] = set()
        """Those of `_actors` that take no slot."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._attendance = Attendance(ports.sleep, self._abandon)
        self._ran = 0
        self._queued = False
        self._behind = False
        """Whether work of this host's kind waits, as far as it knows."""
        self._entering: Counter[str] = Counter()
        """Foreground responses on their way into the queue, by project."""
        self._pulling = self._pull_wanted = False
        self._crashed = False
        self._aggregates = AggregateWriter(ports.store, ports.bus, ports.sleep)

    # -- What others ask of it -----------------------------------------------------------------------------

    async def obey(self, orders: Sequence[Order]) -> Answer:
        """Carry the orders out, side by side.

        A create is carried out once its first event is committed, a cancel once a terminal one is.
        """
        outcomes = await asyncio.gather(*(self._outcome(order) for order in orders))
        for refusal in outcomes:
            if refusal is not None:
                _REFUSED.add(1, type(refusal).__name__)
        return Answer(outcomes, len(self._actors))

    def info(self) -> HostInfo:
        """The host as it stands."""
        identity = self._ports.host
        return HostInfo(
            name=identity.host,
            isolation=self._isolation,
            slots=self._slots,
            node=identity.node,
            pid=identity.pid,
            running=len(self._actors),
            guests=len(self._guests),
            ran=self._ran,
            queued=self._queued,
            owns_log=self._ports.store.is_owner,
        )

    def running(self) -> list[Running]:
        """The responses that run here, the oldest first."""
        return list(self._running.values())

    async def reclaim(self) -> None:
        """Hand back what this host owns but does not run: a commit it had given up was made after all."""
        owned = await self._ports.store.heads(owner=self._ports.host.host, limit=2 * self._slots)
        for head in owned:
            if head.stream not in self._actors:
                await self._hand_back(head.stream)

    def crash(self) -> None:
        """Stop where it stands, as a killed process does: what is unfinished is taken over elsewhere."""
        self._crashed = True
        for task in list(self._tasks):
            task.cancel()
        self._attendance.close()

    # -- Orders --------------------------------------------------------------------------------------------

    async def _outcome(self, order: Order) -> Exception | None:
        try:
            match order:
                case CreateOrder(command=command):
                    await self._create(command)
                case CancelOrder(response_id=response_id, by=by):
                    await self._actor(response_id).cancel(by)
                case DeleteOrder(response_id=response_id, by=by, reason=reason):
                    await self._actor(response_id).delete(by, reason)
                case AttachOrder(response_id=response_id, listener=listener):
                    self._check_runs(response_id)
                    self._attendance.attach(response_id, listener)
                case DetachOrder(response_id=response_id, listener=listener, grace=grace):
                    self._check_runs(response_id)
                    self._attendance.detach(response_id, listener, grace)
                case ResumeOrder(response_id=response_id, epoch=epoch):
                    await self._resume(response_id, epoch)
                case AggregateOrder():
                    await self._aggregates.obey(order)
        except (PlacementError, ResponseError, Refused, EventStoreError) as refusal:
            return refusal
        except ActivationLost as lost:
            return Moved(lost.stream)
        except Exception as error:
            # One order that meets a mistake of ours must not take those down that travel with it.
            log.exception("%s could not be obeyed", type(order).__name__)
            return PlacementError(f"{type(order).__name__} met {type(error).__name__}")
        return None

    async def _create(self, command: Create) -> None:
        if command.id in self._actors:
            return
        # What belongs on a host of another kind is only queued here.
        ours = (command.agent.get("isolation") or self._isolation) == self._isolation
        room = self._taken() < self._slots
        # Whoever waits comes first: a flood of new work would else take every slot as it gets free.
        regular = ours and room and not self._behind
        guest = ours and not regular and self._is_guest(command)
        start = regular or guest
        waits = not start and not command.request.background
        if waits:
            await self._check_queue(command.project)
            # Counted at once: of a crowd that asks together nobody is in the log yet.
            self._entering[command.project] += 1
        actor = ResponseActor(self._ports, command.id)
        if start:
            # The slot is taken before anything is awaited, so that no other order can take it too.
            self._occupy(actor, command.request.model, command.project)
            if guest:
                self._guests.add(command.id)
            if not command.request.background:
                self._attendance.begin(command.id)
        try:
            command = replace(command, agent=shared(command.agent), queued=command.queued or not start)
            await actor.create(command, start=start)
        except BaseException:
            # If it was made all the same, `reclaim` finds it.
            if start:
                self._vacate(command.id)
            raise
        finally:
            if waits:
                self._entering -= Counter((command.project,))
        if start:
            self._launch(actor)
        else:
            self._queued, self._behind = True, self._behind or ours
            if ours and room:
                self._spawn(self._pull(), "pull")

    def _is_guest(self, command: Create) -> bool:
        """Whether a client waits whose project runs nothing here, and it need not wait for those that do."""
        if command.request.background:
            return False
        # Whoever asks anew at once, having read an end, is often faster than the slot that gets free.
        busy = {id: self._running[id].project for id, actor in self._actors.items() if not actor.is_over()}
        guests = self._guests & busy.keys()
        return len(guests) < self._slots // GUESTS and command.project not in busy.values()

    async def _check_queue(self, project: str) -> None:
        """Refuse a client that waits, where the queue is full and its project has its share of it.

        Background work waits too, but without a client, and any amount of it.
        """
        waiting = Counter({project: 0})
        waiting.update(await self._ports.store.tally(categories=RESPONSES, states=[WAITING]))
        waiting.update(self._entering)
        if waiting.total() >= self._queue_limit and waiting[project] >= self._queue_limit // len(waiting):
            raise Overloaded(retry_after=1.0)

    async def _resume(self, response_id: str, epoch: int) -> None:
        if response_id in self._actors:
            return
        if self._taken() >= self._slots:
            raise Overloaded(retry_after=1.0)
        actor = ResponseActor(self._ports, response_id)
        self._occupy(actor, "", "")
        try:
            head = await self._ports.store.head(response_id)
            if head is None:
                raise UnknownResponse(response_id)
            if head.epoch != epoch:
                self._vacate(response_id)
                return
            self._occupy(actor, head.attributes.get("model", ""), head.tenant)
            if not is_background(head):
                self._attendance.begin(response_id)
            await actor.resume(head)
            if (state := actor.state()) is not None and state.activation is not None:
                _TAKEOVERS.add()
        except BaseException:
            self._vacate(response_id)
            # If it is ours already, `reclaim` finds it: nobody else would run it as long as this host lives.
            raise
        self._launch(actor)

    def _check_runs(self, response_id: str) -> None:
        if response_id not in self._actors:
            raise Moved(response_id)

    async def _abandon(self, response_id: str) -> None:
        """End what nobody listens to; the upstream's connection is closed at once."""
        if response_id in self._actors:
            log.info("response %s ends: its client is gone", response_id)
            await self._actors[response_id].cancel(CLIENT_GONE)

    def _actor(self, response_id: str) -> ResponseActor:
        return self._actors.get(response_id) or ResponseActor(self._ports, response_id)

    # -- Slots ---------------------------------------------------------------------------------------------

    def _taken(self) -> int:
        """How many slots are taken.  Guests take none: what waits would else wait as long as they come."""
        return len(self._actors) - len(self._guests)

    def _occupy(self, actor: ResponseActor, model: str, project: str) -> None:
        self._actors[actor.id] = actor
        self._running[actor.id] = Running(actor.id, model, project, time())

    def _vacate(self, response_id: str) -> None:
        self._actors.pop(response_id, None)
        self._running.pop(response_id, None)
        self._guests.discard(response_id)
        self._attendance.end(response_id)

    def _launch(self, actor: ResponseActor) -> None:
        self._ran += 1
        self._spawn(self._run(actor), actor.id)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, actor: ResponseActor) -> None:
        try:
            await actor.run()
        except ActivationLost as lost:
            log.info("activation lost: %s", lost)
        except Exception:
            log.exception("response %s could not be run here; it goes back to the queue", actor.id)
            await self._hand_back(actor.id)
        finally:
            self._vacate(actor.id)
        if self._queued and not self._crashed:
            await self._pull()

    async def _hand_back(self, response_id: str) -> None:
        try:
            head = await self._ports.store.head(response_id)
            if head is not None and head.owner == self._ports.host.host:
                await self._ports.store.take(response_id, epoch=head.epoch, owner=None, state=in_queue(head))
                self._queued = True
        except EventStoreError as error:
            # `reclaim` comes back to it; should this host end before, its lease decides.
            log.warning("response %s was not handed back: %s", response_id, error)

    async def _pull(self) -> None:
        """Take what waits and comes first, now that a slot is free.

        What began together ends together: one pull serves all slots that get free while it looks.
        """
        self._pull_wanted = True
        if self._pulling:
            return
        self._pulling = True
        try:
            while self._pull_wanted and not self._crashed:
                self._pull_wanted = False
                await self._pull_once()
        finally:
            self._pulling = False

    async def _pull_once(self) -> None:
        try:
            waiting = await fair_page(self._ports.store, PULL_PAGE)
            mine = [head for head in waiting if self._suits(head)]
            free = max(0, self._slots - self._taken())
            self._queued, self._behind = len(waiting) >= PULL_PAGE or bool(mine), len(mine) > free
            orders = [ResumeOrder(head.stream, head.epoch) for head in mine[:free]]
            outcomes = await asyncio.gather(*map(self._outcome, orders))
            # What another host was faster to take leaves room for the next.
            self._pull_wanted |= any(
                isinstance(outcome, Moved | Fenced)
                or (outcome is None and order.response_id not in self._actors)
                for order, outcome in zip(orders, outcomes, strict=True)
            )
        except EventStoreError as error:
            log.warning("the queue could not be read: %s", error)

    def _suits(self, head: Head) -> bool:
        return head.owner is None and head.attributes.get("isolation", "shared") == self._isolation
