"""The fleet: which hosts a cluster has, how they come and go, and who of them has room.  No Ray here.

A host is asked again and again how full it is.  One that stays silent gets no work any more and another is
started in its place; whether it is dead its process, its lease or a long silence decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from actors.background import Background
from actors.config import ClusterConfig
from actors.hosts import HostDied, HostFactory, HostHandle, HostSpec, HostUnreachable
from actors.orders import HostInfo, Overloaded, PlacementError, RuntimeUnavailable

log = logging.getLogger(__name__)

ANSWER_MAX = 1.0
"""Seconds a host may leave a question unanswered."""
SILENT_MAX = 3
"""Questions in a row without an answer after which a host gets no work and another takes its place.  They are
counted, and seconds are not: a supervisor that stood still itself must not blame its hosts."""
DEAD_SILENT = 10
"""Questions in a row without an answer after which a host is ended, though it renews its lease: its event
loop is blocked, and with it every response that it runs."""
UNUSED_MAX = 30.0
"""Seconds a dedicated host waits for its response; the replica that asked for it may be gone."""


@dataclass(slots=True, eq=False)
class Host:
    """A host as the supervisor keeps it."""

    spec: HostSpec
    handle: HostHandle
    info: HostInfo
    since: float
    """When it was added, seconds."""
    reserved: int = 0
    """Slots promised since `info` was read."""
    silent: int = 0
    """Questions in a row that it has left unanswered."""
    leaves: bool = False
    """Another has taken its place: it gets no work any more, and ends when it runs nothing."""

    @property
    def free(self) -> int:
        """Slots that are neither taken nor promised."""
        taken = self.info.running - self.info.guests
        return 0 if self.leaves else self.spec.slots - taken - self.reserved


class Fleet:
    """The hosts of one cluster, by name."""

    def __init__(
        self,
        config: ClusterConfig,
        factory: HostFactory,
        now: Callable[[], float],
        options_of: Callable[[str], Mapping[str, Any]],
    ) -> None:
        self.hosts: dict[str, Host] = {}
        self._config = config
        self._factory = factory
        self._now = now
        self._options_of = options_of
        self._version = 0
        self._changed = asyncio.Event()
        self._starting: Counter[str] = Counter()
        self._dedicated: dict[str, asyncio.Task[Host]] = {}
        self._warming = asyncio.Lock()
        self._background = Background()

    async def close(self) -> None:
        """Start nothing any more, and end every host."""
        await self._background.aclose()
        starts = list(self._dedicated.values())
        for start in starts:
            start.cancel()
        await asyncio.gather(*starts, return_exceptions=True)
        for host in self.hosts.values():
            host.handle.kill()

    async def watch(self, version: int, timeout: float) -> tuple[int, list[tuple[HostInfo, HostHandle]]]:
        """The warm hosts that take work, as soon as they differ from those of `version`, or after
        `timeout` seconds."""
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
            for host in (*self._working("shared"), *self._working("exclusive"))
        ]

    # -- Who has room --------------------------------------------------------------------------------------

    def free(self, isolation: str) -> Host | None:
        """The host of that kind with most room, or None where none has any."""
        candidates = [host for host in self._working(isolation) if host.free > 0]
        return max(candidates, key=lambda host: host.free, default=None)

    def any(self) -> Host | None:
        """A host that can carry out what needs no slot, or None."""
        return self.free("shared") or next(iter(self.hosts.values()), None)

    async def reserve(self, response_id: str, isolation: str, model: str) -> Host:
        """A slot for one response: on a host with room, or on a fresh one where it needs one of its own.

        Raises `Overloaded` while as many run as may, and `RuntimeUnavailable` where none comes up.
        """
        if isolation == "dedicated":
            return await self._dedicated_host(response_id, model)
        host = self.free(isolation)
        if host is None:
            if isolation == "shared":
                raise Overloaded(retry_after=1.0)
            host = await self._start(self._spec(isolation, model))
        host.reserved += 1
        if isolation != "shared":
            self._background.spawn(self._keep_spare(isolation))
        return host

    # -- Coming and going ----------------------------------------------------------------------------------

    async def adopt(self) -> None:
        """Take in hosts that an earlier supervisor left running, as far as they answer."""
        for spec, handle, info in await self._factory.found():
            self._add(spec, handle, info)

    async def keep_warm(self, *, one_first: bool = False) -> None:
        """Start as many hosts as are missing; what is too many leaves when it runs nothing.

        With `one_first`, and where there is none, one is started before the others: all wait for it.
        """
        if self._warming.locked():
            return  # Whoever is at it counted what is missing; the next look counts again.
        async with self._warming:
            shared = self._working("shared")
            for host in shared[self._config.hosts :]:
                self._retire(host, "there are enough others")
            missing = self._config.hosts - len(shared)
            if one_first and not shared and missing > 1:
                await self._start(self._spec("shared"))
                missing -= 1
            await asyncio.gather(*(self._start(self._spec("shared")) for _ in range(missing)))
            if self._config.isolation == "exclusive":
                await self._keep_spare("exclusive")

    async def ask(self, host: Host) -> str | None:
        """Hear how full it is.  Why it must be taken for dead, or None."""
        try:
            info = await asyncio.wait_for(host.handle.info(), ANSWER_MAX)
        except (TimeoutError, HostUnreachable):
            host.silent += 1
            if host.silent == SILENT_MAX:
                self._retire(host, "it does not answer")
            return "it does not answer" if host.silent >= DEAD_SILENT else None
        except HostDied:
            return "it does not answer any more"
        host.info, host.reserved, host.silent = info, 0, 0
        return None

    def is_over(self, host: Host) -> bool:
        """Whether nothing is left for it to do: its one response is over, or it leaves and runs nothing."""
        if host.silent or host.info.running:
            return False
        if host.spec.isolation == "dedicated":
            return host.info.ran > 0 or self._now() - host.since > UNUSED_MAX
        return host.leaves

    def remove(self, host: Host) -> bool:
        """Forget a host and end its process.  False where that was done before."""
        if self.hosts.pop(host.spec.name, None) is None:
            return False
        # Whatever was taken for dead must be: a process that was halted might go on one day.
        host.handle.kill()
        self._tell()
        return True

    def _retire(self, host: Host, why: str) -> None:
        log.warning("host %s (pid %d) gets no work any more: %s", host.spec.name, host.info.pid, why)
        host.leaves = True
        self._tell()

    def _working(self, isolation: str) -> list[Host]:
        return [host for host in self.hosts.values() if host.spec.isolation == isolation and not host.leaves]

    def _spec(self, isolation: str, model: str = "") -> HostSpec:
        return HostSpec(
            name=f"host-{uuid4().hex[:12]}",
            isolation=isolation,
            slots=self._config.slots if isolation == "shared" else 1,
            options=self._options_of(model) if isolation != "shared" else {},
        )

    async def _start(self, spec: HostSpec) -> Host:
        if spec.isolation != "shared":
            self._make_room(spec.isolation)
        kind = "shared" if spec.isolation == "shared" else "alone"
        self._starting[kind] += 1
        handle: HostHandle | None = None
        try:
            handle = await self._factory.start(spec)
            return self._add(spec, handle, await handle.info())
        except HostDied as error:
            log.warning("host %s did not come up: %s", spec.name, error)
            if handle is not None:
                handle.kill()  # Nobody would ever give it work, or end it.
            raise RuntimeUnavailable("a host did not come up") from error
        finally:
            self._starting[kind] -= 1

    def _make_room(self, isolation: str) -> None:
        """See to it that one more host of one response may be started.

        A warm one of the other kind, which nobody uses, gives way: it would keep its place for ever.
        """
        alone = [host for host in self.hosts.values() if host.spec.isolation != "shared"]
        if len(alone) + self._starting["alone"] < self._config.hosts_max:
            return
        for host in alone:
            if host.spec.isolation == "exclusive" != isolation and host.free > 0:
                self.remove(host)
                return
        raise Overloaded(retry_after=1.0)

    def _add(self, spec: HostSpec, handle: HostHandle, info: HostInfo) -> Host:
        host = Host(spec, handle, info, since=self._now())
        self.hosts[spec.name] = host
        self._tell()
        return host

    def _tell(self) -> None:
        self._version += 1
        self._changed.set()

    async def _keep_spare(self, isolation: str) -> None:
        """Hold one idle host ready beyond those that are taken."""
        if self.free(isolation) is None and not self._starting["alone"]:
            try:
                await self._start(self._spec(isolation))
            except PlacementError as error:
                log.info("no spare %s host: %s", isolation, error)

    async def _dedicated_host(self, response_id: str, model: str) -> Host:
        for host in self.hosts.values():
            if host.spec.actor == f"response:{response_id}" and not host.handle.gone():
                return host  # Asked for again: its first answer was lost, or its response was not taken.
        task = self._dedicated.get(response_id)
        if task is None:
            spec = replace(self._spec("dedicated", model), name=f"response:{response_id}.{uuid4().hex[:8]}")
            task = asyncio.create_task(self._start(spec))
            self._dedicated[response_id] = task
            task.add_done_callback(lambda done: self._started(response_id, done))
        return await asyncio.shield(task)

    def _started(self, response_id: str, start: asyncio.Task[Host]) -> None:
        self._dedicated.pop(response_id, None)
        if not start.cancelled():
            start.exception()  # Everybody who waited for it may be gone.
