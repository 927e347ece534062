"""The supervisor: keeps hosts warm, sees them die, and finds a host for what has none.  No Ray here.

It holds nothing that it could not find again: hosts are found by name, work by the log's heads.  Restarted,
it goes on.  Early or doubled takeovers do no harm, because every takeover raises the stream's epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any
from uuid import uuid4

from actors.background import Background
from actors.backlog import PAGE, Backlog, Known
from actors.census import Census
from actors.config import ClusterConfig
from actors.fleet import Fleet, Host
from actors.hosts import HostDied, HostFactory, HostHandle
from actors.orders import (
    CancelOrder,
    DeleteOrder,
    HostInfo,
    Order,
    Overloaded,
    PlacementError,
    ResumeOrder,
    Running,
    RuntimeUnavailable,
    UnknownResponse,
)
from actors.quotas import Ledger
from eventstore.errors import EventStoreError, Fenced
from eventstore.events import Head
from eventstore.meter import METER, Figures
from eventstore.ports import EventStore
from eventstore.sealing import seal
from runtime.response.errors import UnknownEvent
from runtime.response.standing import in_queue

log = logging.getLogger(__name__)

_SEALED_STREAMS = METER.counter("log_sealed_streams", "Streams whose events were compressed.")
_SEALED_RECORDS = METER.counter("log_sealed_records", "Records that became part of a block.")
_FINDINGS = METER.counter("log_unsealed_findings", "Streams that could not be sealed.")

WATCH_INTERVAL = 0.1
"""Seconds between looks at whether hosts' processes are there; costs a few system calls a host."""
INFO_INTERVAL = 0.5
"""Seconds between questions to each host how full it is."""
REHOME_INTERVAL = 0.25
"""Seconds between looks for leases that ran out and for queued work."""
SWEEP_INTERVAL = 5.0
"""Seconds between looks for work and hosts of which no hint came, and for responses whose time is over."""
HEAD_START = 1.0
"""Seconds after a host's death in which no other is started while one lives: a start takes whole processors,
and what the dead one ran goes on sooner without."""
SEAL_INTERVAL = 1.0
"""Seconds between rounds of sealing, each of a page of responses at most."""
RUNNING_MAX = 2.0
"""Seconds a host may take to tell what runs on it."""


class Supervisor:
    """Watches over the hosts of one cluster."""

    def __init__(
        self,
        config: ClusterConfig,
        store: EventStore,
        factory: HostFactory,
        *,
        now: Callable[[], float],
        options_of: Callable[[str], Mapping[str, Any]] = lambda _model: {},
    ) -> None:
        self._config = config
        self._store = store
        self._fleet = Fleet(config, factory, now, options_of)
        self.ledger = Ledger(lambda: asyncio.get_running_loop().time())
        self._work = asyncio.Event()
        self._background = Background()
        self._backlog = Backlog(store, config, now)
        self._refused = Known()
        """Responses that a host would not erase."""
        self._succeeding: set[str] = set()
        self._quiet_until = 0.0
        """When hosts may be started again, by the event loop's clock."""
        self.census = Census(f"supervisor-{uuid4().hex[:8]}", now)
        METER.read("responses_waiting", "Responses in the queue.", lambda: self._backlog.waiting)
        METER.read("hosts", "Hosts that the supervisor knows.", lambda: len(self._fleet.hosts))

    async def start(self) -> None:
        """Find or start the warm hosts, then watch them until `close`.  Raises `RuntimeUnavailable`."""
        await self._fleet.adopt()
        await self._fleet.keep_warm()
        self._work.set()
        for loop in (
            self._every(WATCH_INTERVAL, self._watch),
            self._every(INFO_INTERVAL, self._ask),
            self._every(REHOME_INTERVAL, self._find_work),
            self._every(SWEEP_INTERVAL, self._sweep),
            self._every(SWEEP_INTERVAL, self._erase),
            self._every(SEAL_INTERVAL, self._seal),
        ):
            self._background.spawn(loop)

    async def close(self) -> None:
        """Stop watching and end every host."""
        await self._background.aclose()
        await self._fleet.close()

    # -- What others ask of it -----------------------------------------------------------------------------

    async def watch(self, version: int, timeout: float) -> tuple[int, list[tuple[HostInfo, HostHandle]]]:
        """The hosts, as soon as they differ from those of `version`, or after `timeout` seconds."""
        return await self._fleet.watch(version, timeout)

    async def running(self) -> list[tuple[HostInfo, list[Running]]]:
        """Every host with what runs there."""
        hosts = list(self._fleet.hosts.values())
        answers = await asyncio.gather(
            *(asyncio.wait_for(host.handle.running(), RUNNING_MAX) for host in hosts),
            return_exceptions=True,
        )
        return [
            (host.info, [] if isinstance(answer, BaseException) else answer)
            for host, answer in zip(hosts, answers, strict=True)
        ]

    async def command(self, order: CancelOrder | DeleteOrder) -> Exception | None:
        """Have the owner of a response, or any host where it has none, carry out an order; its refusal."""
        head = await self._store.head(order.response_id)
        if head is None:
            return UnknownResponse(order.response_id)
        host = self._fleet.hosts.get(head.owner or "") or self._fleet.any()
        if host is None:
            return RuntimeUnavailable("no host is warm")
        try:
            return (await host.handle.obey([order])).outcomes[0]
        except HostDied as error:
            return RuntimeUnavailable(str(error))
        except PlacementError as refusal:
            return refusal

    async def reserve(self, response_id: str, isolation: str, model: str) -> str:
        """The name of a host of its own for one response: a warm idle one, or a fresh Ray actor.

        Raises `Overloaded` while as many run as may, and `RuntimeUnavailable` where none comes up.
        """
        return (await self._fleet.reserve(response_id, isolation, model)).spec.name

    async def figures(self) -> list[tuple[str, Figures]]:
        """What every process counted, by its name."""
        hosts = self._fleet.hosts.items()
        return await self.census.gather(
            {name: host.handle for name, host in hosts if host.spec.isolation != "dedicated"}
        )

    def host(self, name: str) -> HostHandle | None:
        """The host of that name, dedicated ones among them, or None."""
        host = self._fleet.hosts.get(name)
        return host.handle if host else None

    # -- Watching ------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        for host in list(self._fleet.hosts.values()):
            if host.handle.gone():
                self._lost(host, "its process is gone or was halted")

    async def _ask(self) -> None:
        await asyncio.gather(*(self._ask_one(host) for host in list(self._fleet.hosts.values())))
        if asyncio.get_running_loop().time() >= self._quiet_until:
            # Beside this: a start takes seconds, in which loads would grow old and hints go unheard.
            self._background.spawn(self._fleet.keep_warm(one_first=True))

    async def _ask_one(self, host: Host) -> None:
        dead = await self._fleet.ask(host)
        if dead is not None:
            self._lost(host, dead)
        elif self._fleet.is_over(host):
            if host.spec.isolation == "dedicated":
                await self.census.add_up(host.handle)
            if self._fleet.remove(host):
                self._background.spawn(self._bury(host.spec.name))
        elif host.info.queued:
            self._work.set()

    def _lost(self, host: Host, why: str) -> None:
        """Have others go on with what a dead host ran."""
        if self._fleet.remove(host):
            log.warning("host %s (pid %d) is lost: %s", host.spec.name, host.info.pid, why)
            # Beside whoever saw it: with the log's owner dead, burying waits for the next one.
            self._background.spawn(self._succeed(host.spec.name))
            if self._fleet.free("shared") is not None:
                self._quiet_until = asyncio.get_running_loop().time() + HEAD_START
            else:
                self._background.spawn(self._fleet.keep_warm(one_first=True))

    async def _succeed(self, name: str) -> None:
        if name in self._succeeding:
            return  # The lease loop sees it too, as long as it owns streams.
        self._succeeding.add(name)
        try:
            await self._bury(name)
            await self._rehome(name)
        finally:
            self._succeeding.discard(name)
        self._work.set()  # What it knew of the queue died with it.

    async def _bury(self, name: str) -> None:
        try:
            await self._store.bury(name)
        except EventStoreError as error:
            # It stays unburied until its lease runs out; `_find_work` comes back to it.
            log.warning("host %s was not buried: %s", name, error)

    # -- Work without a host -------------------------------------------------------------------------------

    async def _find_work(self) -> None:
        for holder in await self._store.expired():
            host = self._fleet.hosts.get(holder)
            if host is not None:
                self._lost(host, "its lease ran out")
            else:
                await self._succeed(holder)
        if self._work.is_set():
            self._work.clear()
            await self._dispatch()

    async def _rehome(self, holder: str) -> None:
        """Give every stream of a dead holder to a living host, or to the queue where none has room."""
        seen: Sequence[Head] = ()
        try:
            while page := await self._store.heads(owner=holder, limit=PAGE):
                if page == seen:
                    # Nobody could take them; the lease loop comes back to this holder.
                    return
                seen = page
                for head in await self._place(page):
                    await self._store.take(head.stream, epoch=head.epoch, owner=None, state=in_queue(head))
                    self._work.set()
        except EventStoreError as error:
            log.warning("the streams of %s wait: %s", holder, error)

    async def _dispatch(self) -> None:
        """Start what waits."""
        if waiting := await self._backlog.queued():
            await self._place(waiting)
            # Not all may have been taken, and there may be more: look until nothing waits.
            self._work.set()

    async def _place(self, heads: Sequence[Head]) -> list[Head]:
        """Resume the streams on hosts with room.  Returns those for which there was none."""
        orders: dict[str, tuple[HostHandle, list[tuple[Head, Order]]]] = {}
        left: list[Head] = []
        for head in heads:
            try:
                handle = await self._host_for(head)
            except PlacementError:
                left.append(head)
                continue
            order = (head, ResumeOrder(head.stream, head.epoch))
            orders.setdefault(repr(handle), (handle, []))[1].append(order)
        for handle, given in orders.values():
            left += await self._send(handle, given)
        return left

    async def _send(self, handle: HostHandle, given: Sequence[tuple[Head, Order]]) -> list[Head]:
        """Have a host resume these.  Returns those that it refused, for whatever reason."""
        try:
            outcomes = (await handle.obey([order for _, order in given])).outcomes
        except HostDied:
            return []
        except PlacementError as error:
            outcomes = [error] * len(given)
        left: list[Head] = []
        for (head, _), refusal in zip(given, outcomes, strict=True):
            if refusal is None or isinstance(refusal, Fenced):
                continue  # It runs there, or somebody else was faster.
            if not isinstance(refusal, Overloaded):
                log.warning("response %s was not resumed by %r: %s", head.stream, handle, refusal)
            if not isinstance(refusal, UnknownEvent):  # Which is left alone: it may run elsewhere.
                left.append(head)
        return left

    async def _host_for(self, head: Head) -> HostHandle:
        isolation = head.attributes.get("isolation", self._config.isolation)
        return (await self._fleet.reserve(head.stream, isolation, head.attributes.get("model", ""))).handle

    async def _sweep(self) -> None:
        self._work.set()  # A hint can be lost, as with a host that died before it told.
        await self._fleet.adopt()
        await self._place(await self._backlog.unowned())

    async def _erase(self) -> None:
        async for orders in self._backlog.erasures():
            if host := self._fleet.any():
                answer = await host.handle.obey(orders)
                for order, refusal in zip(orders, answer.outcomes, strict=True):
                    # Once a response: it is tried again and again.
                    if refusal is not None and self._refused.add(order.response_id):
                        log.error("response %s was not erased: %r", order.response_id, refusal)

    async def _seal(self) -> None:
        if not (heads := await self._backlog.sealable()):
            return
        why = f"{self._config.seal_after:g} s have passed since the end"
        sealed = await seal(self._store, heads, "supervisor", why)
        _SEALED_STREAMS.add(sealed.streams)
        _SEALED_RECORDS.add(sealed.records)
        for finding in sealed.findings:
            _FINDINGS.add()
            self._backlog.unsealable.add(finding.stream)
            log.error("not sealed: %s", finding)
        for stream in sealed.too_long:
            self._backlog.unsealable.add(stream)
            log.info("response %s is not sealed: it is too long", stream)

    # -- Loops ---------------------------------------------------------------------------------------------

    async def _every(self, interval: float, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await step()
            except (EventStoreError, HostDied, PlacementError) as error:
                log.warning("%s: %s", step.__name__, error)
            except Exception:
                # A supervisor that stops watching is worse than one that stumbles; the next step tries again.
                log.exception("%s failed", step.__name__)
            await asyncio.sleep(interval)
