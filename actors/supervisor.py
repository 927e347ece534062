"""The supervisor: keeps hosts warm, sees them die, and finds a host for what has none.  No Ray here.

It holds nothing that it could not find again: hosts are found by name, work by the log's heads.  Restarted,
it goes on.  Early or doubled takeovers do no harm, because every takeover raises the stream's epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from actors.backlog import PAGE, Backlog
from actors.config import ClusterConfig
from actors.hosts import HostDied, HostFactory, HostHandle, HostSpec, HostUnreachable
from actors.orders import (
    CancelOrder,
    DeleteOrder,
    HostInfo,
    Order,
    Overloaded,
    ResumeOrder,
    Running,
    RuntimeUnavailable,
    UnknownResponse,
)
from eventstore.errors import EventStoreError
from eventstore.events import Head
from eventstore.ports import EventStore

log = logging.getLogger(__name__)

WATCH_INTERVAL = 0.1
"""Seconds between looks at whether hosts' processes are there; costs one system call a host."""
INFO_INTERVAL = 0.5
"""Seconds between questions to each host how full it is."""
REHOME_INTERVAL = 0.25
"""Seconds between looks for leases that ran out and for queued work."""
SWEEP_INTERVAL = 5.0
"""Seconds between looks for work of which no hint came, and for transient responses whose time is over."""
HANG_TIMEOUT = 2.0
"""Seconds a host may leave a question unanswered; only its lease decides whether it is dead."""
UNUSED_MAX = 30.0
"""Seconds a dedicated host waits for its response; the replica that asked for it may be gone."""


@dataclass(slots=True)
class Host:
    """A host as the supervisor keeps it."""

    spec: HostSpec
    handle: HostHandle
    info: HostInfo
    since: float
    """When it was added, seconds."""
    reserved: int = 0
    """Slots promised since `info` was read."""

    @property
    def free(self) -> int:
        """Slots that are neither taken nor promised."""
        return self.spec.slots - self.info.running - self.reserved


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
        self._factory = factory
        self._now = now
        self._options_of = options_of
        self._hosts: dict[str, Host] = {}
        self._version = 0
        self._changed = asyncio.Event()
        self._work = asyncio.Event()
        self._starting: Counter[str] = Counter()
        self._dedicated: dict[str, asyncio.Task[Host]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._warming = asyncio.Lock()
        self._backlog = Backlog(store, config, now)

    async def start(self) -> None:
        """Find or start the warm hosts, then watch them until `close`.  Raises `HostDied`."""
        for spec, handle in await self._factory.found():
            try:
                self._add(spec, handle, await asyncio.wait_for(handle.info(), HANG_TIMEOUT))
            except (HostDied, TimeoutError):
                handle.kill()
        await self._keep_warm()
        self._work.set()
        for loop in (
            self._every(WATCH_INTERVAL, self._watch),
            self._every(INFO_INTERVAL, self._ask),
            self._every(REHOME_INTERVAL, self._find_work),
            self._every(SWEEP_INTERVAL, self._sweep),
        ):
            self._spawn(loop)

    async def close(self) -> None:
        """Stop watching and end every host."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for host in self._hosts.values():
            host.handle.kill()

    # -- What others ask of it -----------------------------------------------------------------------------

    async def watch(self, version: int, timeout: float) -> tuple[int, list[tuple[HostInfo, HostHandle]]]:
        """The hosts, as soon as they differ from those of `version`, or after `timeout` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        while self._version == version:
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0:
                break
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), remaining)
            except TimeoutError:
                break
        return self._version, [
            (replace(host.info, running=host.info.running + host.reserved), host.handle)
            for host in self._hosts.values()
            if host.spec.isolation == "shared"
        ]

    async def running(self) -> list[tuple[HostInfo, list[Running]]]:
        """Every host with what runs there."""
        hosts = list(self._hosts.values())
        answers = await asyncio.gather(
            *(asyncio.wait_for(host.handle.running(), HANG_TIMEOUT) for host in hosts),
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
        host = (
            self._hosts.get(head.owner or "")
            or self._free("shared")
            or next(iter(self._hosts.values()), None)
        )
        if host is None:
            return RuntimeUnavailable("no host is warm")
        try:
            return (await host.handle.obey([order]))[0]
        except HostDied as error:
            return RuntimeUnavailable(str(error))

    async def reserve(self, response_id: str, isolation: str, model: str) -> HostHandle:
        """A host of its own for one response: a warm idle one, or a fresh Ray actor.

        Raises `Overloaded` while as many run as may.
        """
        if isolation == "dedicated":
            return (await self._dedicated_host(response_id, model)).handle
        host = self._free(isolation)
        if host is None:
            host = await self._start_host(self._spec(isolation, model))
        host.reserved += 1
        self._spawn(self._keep_spare(isolation))
        return host.handle

    def host(self, name: str) -> HostHandle | None:
        """The host of that name, dedicated ones among them, or None."""
        host = self._hosts.get(name)
        return host.handle if host else None

    # -- Hosts ---------------------------------------------------------------------------------------------

    def _spec(self, isolation: str, model: str = "") -> HostSpec:
        return HostSpec(
            name=f"host-{uuid4().hex[:12]}",
            isolation=isolation,
            slots=self._config.slots if isolation == "shared" else 1,
            options=self._options_of(model) if isolation != "shared" else {},
        )

    async def _start_host(self, spec: HostSpec) -> Host:
        if spec.isolation != "shared":
            alone = [host for host in self._hosts.values() if host.spec.isolation != "shared"]
            if len(alone) + self._starting["alone"] >= self._config.hosts_max:
                raise Overloaded(retry_after=1.0)
        kind = "shared" if spec.isolation == "shared" else "alone"
        self._starting[kind] += 1
        try:
            handle = await self._factory.start(spec)
            return self._add(spec, handle, await handle.info())
        except HostDied as error:
            log.warning("host %s did not come up: %s", spec.name, error)
            raise Overloaded(retry_after=1.0) from error
        finally:
            self._starting[kind] -= 1

    def _add(self, spec: HostSpec, handle: HostHandle, info: HostInfo) -> Host:
        host = Host(spec, handle, info, since=self._now())
        self._hosts[spec.name] = host
        self._tell()
        return host

    def _tell(self) -> None:
        self._version += 1
        self._changed.set()

    async def _keep_warm(self) -> None:
        if self._warming.locked():
            return  # Whoever is at it counted what is missing; the next look counts again.
        async with self._warming:
            missing = self._config.hosts
            missing -= sum(host.spec.isolation == "shared" for host in self._hosts.values())
            await asyncio.gather(*(self._start_host(self._spec("shared")) for _ in range(missing)))
            if self._config.isolation == "exclusive":
                await self._keep_spare("exclusive")

    async def _keep_spare(self, isolation: str) -> None:
        """Hold one idle host ready beyond those that are taken."""
        if self._free(isolation) is None and not self._starting["alone"]:
            try:
                await self._start_host(self._spec(isolation))
            except Overloaded:
                log.info("no spare %s host: all %d are in use", isolation, self._config.hosts_max)

    def _free(self, isolation: str) -> Host | None:
        candidates = [
            host for host in self._hosts.values() if host.spec.isolation == isolation and host.free > 0
        ]
        return max(candidates, key=lambda host: host.free, default=None)

    async def _dedicated_host(self, response_id: str, model: str) -> Host:
        for host in self._hosts.values():
            if host.spec.actor == f"response:{response_id}" and not host.handle.gone():
                return host  # Asked for again: its first answer was lost, or its response was not taken.
        task = self._dedicated.get(response_id)
        if task is None:
            spec = replace(self._spec("dedicated", model), name=f"response:{response_id}.{uuid4().hex[:8]}")
            task = asyncio.create_task(self._start_host(spec))
            self._dedicated[response_id] = task
            task.add_done_callback(lambda _: self._dedicated.pop(response_id, None))
        return await asyncio.shield(task)

    # -- Watching ------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        gone = [host for host in self._hosts.values() if host.handle.gone()]
        # Side by side: with the log's owner among them, burying waits until somebody else writes the log.
        await asyncio.gather(*(self._lost(host, "its process is gone") for host in gone))

    async def _ask(self) -> None:
        await asyncio.gather(*(self._ask_one(host) for host in list(self._hosts.values())))
        # Beside this: a start takes seconds, in which loads would grow old and hints go unheard.
        self._spawn(self._keep_warm())

    async def _ask_one(self, host: Host) -> None:
        try:
            info = await asyncio.wait_for(host.handle.info(), HANG_TIMEOUT)
        except (TimeoutError, HostUnreachable):
            log.warning("host %s has not answered for %g s", host.spec.name, HANG_TIMEOUT)
        except HostDied:
            await self._lost(host, "it does not answer any more")
        else:
            if host.spec.isolation == "dedicated" and not info.running:
                idle = self._now() - host.since
                if info.ran or idle > UNUSED_MAX:
                    self._dismiss(host)
            host.info, host.reserved = info, 0
            if info.queued:
                self._work.set()

    def _dismiss(self, host: Host) -> None:
        """End a dedicated host whose response is over."""
        self._hosts.pop(host.spec.name, None)
        host.handle.kill()
        self._spawn(self._bury(host.spec.name))

    async def _lost(self, host: Host, why: str) -> None:
        if self._hosts.pop(host.spec.name, None) is None:
            return
        log.warning("host %s (pid %d) is lost: %s", host.spec.name, host.info.pid, why)
        self._tell()
        if not any(other.spec.isolation == "shared" for other in self._hosts.values()):
            # A host writes the log: with none left, burying waits for the first new one.
            self._spawn(self._keep_warm())
        await self._bury(host.spec.name)
        await self._rehome(host.spec.name)
        self._work.set()  # What it knew of the queue died with it.
        self._spawn(self._keep_warm())

    async def _bury(self, name: str) -> None:
        try:
            await self._store.bury(name)
        except EventStoreError as error:
            # It stays unburied until its lease runs out; `_find_work` comes back to it.
            log.warning("host %s was not buried: %s", name, error)

    # -- Work without a host -------------------------------------------------------------------------------

    async def _find_work(self) -> None:
        for holder in await self._store.expired():
            host = self._hosts.get(holder)
            if host is not None:
                host.handle.kill()
                await self._lost(host, "its lease ran out")
            else:
                await self._bury(holder)
                await self._rehome(holder)
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
                    await self._store.take(head.stream, epoch=head.epoch, owner=None, state="queued")
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
            except Overloaded:
                left.append(head)
                continue
            order = (head, ResumeOrder(head.stream, head.epoch))
            orders.setdefault(repr(handle), (handle, []))[1].append(order)
        for handle, given in orders.values():
            left += await self._send(handle, given)
        return left

    async def _send(self, handle: HostHandle, given: Sequence[tuple[Head, Order]]) -> list[Head]:
        try:
            outcomes = await handle.obey([order for _, order in given])
        except HostDied:
            return []
        return [
            head
            for (head, _), outcome in zip(given, outcomes, strict=True)
            if isinstance(outcome, Overloaded)
        ]

    async def _host_for(self, head: Head) -> HostHandle:
        isolation = head.attributes.get("isolation", self._config.isolation)
        if isolation != "shared":
            return await self.reserve(head.stream, isolation, head.attributes.get("model", ""))
        host = self._free("shared")
        if host is None:
            raise Overloaded(retry_after=1.0)
        host.reserved += 1
        return host.handle

    async def _sweep(self) -> None:
        self._work.set()  # A hint can be lost, as with a host that died before it told.
        await self._place(await self._backlog.unowned())
        async for orders in self._backlog.erasures():
            if host := self._free("shared") or next(iter(self._hosts.values()), None):
                await host.handle.obey(orders)

    # -- Loops ---------------------------------------------------------------------------------------------

    async def _every(self, interval: float, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await step()
            except (EventStoreError, HostDied, Overloaded) as error:
                log.warning("%s: %s", step.__name__, error)
            except Exception:
                # A supervisor that stops watching is worse than one that stumbles; the next step tries again.
                log.exception("%s failed", step.__name__)
            await asyncio.sleep(interval)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The loops come back to whatever was not done.
            log.warning("work beside the loops: %s", error)
