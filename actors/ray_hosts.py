"""Hosts as Ray actors: the coat around `ActorHost`, and the factory that makes them.

With `cluster` and `handle` the only files here that import Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.config import NAMESPACE, ClusterConfig
from actors.hosts import HostDied, HostSpec, HostUnreachable
from actors.local_orders import LocalLines, LocalOrders
from actors.orders import Answer, HostInfo, Order, Running
from eventstore.meter import Figures
from eventstore.sql.owner_lock import ProcessIdentity

log = logging.getLogger(__name__)

START_TIMEOUT = 120.0
"""Seconds a fresh host may take: a cold worker process on a busy machine, imports included."""
HALTED_MAX = 1.0
"""Seconds after which a process that a signal halted (SIGSTOP) counts as gone: its clients wait."""
FOUND_MAX = 2.0
"""Seconds a host that an earlier supervisor left may take to answer."""
MISSED_MAX = 3
"""Looks after which a host that was left and never answers is ended: nobody can watch over it."""
CALLS_MAX = 10_000
"""Ray calls that one host may have open: orders wait inside it, bounded by its slots and queue."""


class HostProcess:
    """What Ray instantiates: opens the log and the bus in the host's own process, then obeys."""

    def __init__(self, spec: HostSpec, config: ClusterConfig) -> None:
        self._spec = spec
        self._config = config
        self._parts: Any = None
        self._orders: LocalOrders | None = None

    async def start(self) -> HostInfo:
        """Open everything and begin to renew the lease."""
        # Imported in the worker only: the driver that defines the class needs none of it.
        from actors.host_parts import HostParts

        self._parts = await HostParts.open(self._spec, self._config, ray.get_runtime_context().get_node_id())
        self._orders = LocalOrders(self._parts.host.obey)
        await self._orders.open()
        return self._info()

    async def obey(self, orders: Sequence[Order]) -> Answer:
        """See `ActorHost.obey`."""
        answer: Answer = await self._parts.host.obey(orders)
        return answer

    async def info(self) -> HostInfo:
        """See `ActorHost.info`."""
        return self._info()

    async def running(self) -> list[Running]:
        """See `ActorHost.running`."""
        return list(self._parts.host.running())

    async def figures(self) -> Figures:
        """What this process has counted."""
        from eventstore.meter import METER

        return METER.figures()

    def _info(self) -> HostInfo:
        info: HostInfo = self._parts.host.info()
        return replace(info, address=self._orders.address if self._orders else "")


_LINES = LocalLines()
"""Those of this process, whatever handles of a host it holds."""


class RayHost:
    """`HostHandle` over a Ray actor handle.  Picklable; evidence of death only on the host's own node."""

    def __init__(self, actor: Any, name: str, pid: int, node: str, address: str) -> None:
        self.actor, self.name, self.pid, self.node, self._address = actor, name, pid, node, address
        self._pidfd: int | None = None
        self._process: ProcessIdentity | None = None
        self._halted_at: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A file descriptor does not travel."""
        return (RayHost, (self.actor, self.name, self.pid, self.node, self._address))

    def __repr__(self) -> str:
        return f"<host {self.name} pid {self.pid}>"

    async def obey(self, orders: Sequence[Order]) -> Answer:
        """See `HostHandle`."""
        line = await _LINES.to(self._address) if self._is_here() else None
        obeyed = self._call(self.actor.obey, list(orders)) if line is None else line.obey(list(orders))
        answer: Answer = await obeyed
        return answer

    async def info(self) -> HostInfo:
        """See `HostHandle`."""
        info: HostInfo = await self._call(self.actor.info)
        return info

    async def running(self) -> list[Running]:
        """See `HostHandle`."""
        running: list[Running] = await self._call(self.actor.running)
        return running

    async def figures(self) -> Figures:
        """See `HostHandle`."""
        figures: Figures = await self._call(self.actor.figures)
        return figures

    async def _call(self, method: Any, *arguments: Any) -> Any:
        try:
            return await method.remote(*arguments)
        except ActorUnavailableError as error:
            raise HostUnreachable(f"{self.name}: {type(error).__name__}") from error
        except RayActorError as error:
            raise HostDied(f"{self.name}: {type(error).__name__}") from error

    def watch(self) -> None:
        """Hold the process by a descriptor that tells of its end and cannot mean another process later."""
        if self._is_here():
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except ProcessLookupError:
                self._pidfd = -1
            self._process = ProcessIdentity.of(self.pid)

    def gone(self) -> bool:
        """See `HostHandle`."""
        if self._pidfd is None:
            return False
        if self._pidfd < 0:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0)) or self._is_halted()

    def _is_here(self) -> bool:
        return bool(self.node == ray.get_runtime_context().get_node_id())

    def _is_halted(self) -> bool:
        if self._process is None or not self._process.is_stopped:
            self._halted_at = None
            return False
        if self._halted_at is None:
            self._halted_at = time.monotonic()
        return time.monotonic() - self._halted_at > HALTED_MAX

    def kill(self) -> None:
        """See `HostHandle`.  A stopped process does not hear Ray; on this node its descriptor ends it."""
        try:
            ray.kill(self.actor, no_restart=True)
        except RayError as error:
            log.info("%r: %s", self, error)
        if self._pidfd is not None and self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = -1


_TRIED: set[str] = set()
"""Nodes that were given a host, or on which none came up.  Of this process: each try to start the runtime
has a factory of its own, and must not take the same bad node again."""


class RayHostFactory:
    """`HostFactory` on the Ray cluster that this process belongs to."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._known: set[str] = set()
        """Ray actors that this process started or found, by name."""
        self._missed: Counter[str] = Counter()

    async def start(self, spec: HostSpec) -> RayHost:
        """See `HostFactory`."""
        self._known.add(spec.actor)
        apart = await self._apart() if spec.isolation == "shared" else {}
        options = {"num_cpus": 0, **apart, **spec.options}
        try:
            # Ray adds `remote` to methods at run time; no type checker sees it.
            actor: Any = (
                ray.remote(HostProcess)
                .options(
                    name=spec.actor,
                    namespace=NAMESPACE,
                    # A host outlives the supervisor that made it; the next supervisor finds it by its name.
                    lifetime="detached",
                    max_restarts=0,
                    max_concurrency=CALLS_MAX,
                    **options,
                )
                .remote(spec, self._config)
            )
        except ValueError as error:
            # Ray has not noticed yet that the former actor of this name is dead.
            raise HostDied(f"{spec.name} did not start: {error}") from error
        try:
            info: HostInfo = await asyncio.wait_for(actor.start.remote(), START_TIMEOUT)
        except (TimeoutError, RayError) as error:
            ray.kill(actor, no_restart=True)
            raise HostDied(f"{spec.name} did not start: {error}") from error
        except asyncio.CancelledError:
            ray.kill(actor, no_restart=True)
            raise
        return _watched(actor, info)

    async def _apart(self) -> dict[str, Any]:
        """Ray's option for a node that was never given a host: no node must take all along when it dies.

        Where each has had one Ray chooses: the emptiest may be so because it has just died.  (Softly asked
        for, Ray passes over the very node, if what is to run there needs nothing of it.)
        """
        nodes = {node["NodeID"] for node in await asyncio.to_thread(ray.nodes) if node["Alive"]}
        fresh = min(nodes - _TRIED, default=None)
        if fresh is None:
            return {}
        _TRIED.add(fresh)
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(fresh, soft=False)}

    async def found(self) -> Sequence[tuple[HostSpec, RayHost, HostInfo]]:
        """See `HostFactory`."""
        names = {name for name in ray.util.list_named_actors() if name.startswith(("host-", "response:"))}
        self._known &= names
        strangers = names - self._known
        self._missed = Counter({name: missed for name, missed in self._missed.items() if name in strangers})
        found = await asyncio.gather(*map(self._look_up, strangers))
        return [host for host in found if host is not None]

    async def _look_up(self, name: str) -> tuple[HostSpec, RayHost, HostInfo] | None:
        try:
            actor: Any = ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            return None  # It has just ended.
        try:
            info: HostInfo = await asyncio.wait_for(actor.info.remote(), FOUND_MAX)
        except (TimeoutError, RayError) as error:
            log.warning("host %s was found but does not answer: %r", name, error)
            self._missed[name] += 1
            if self._missed[name] >= MISSED_MAX:
                ray.kill(actor, no_restart=True)
            return None
        self._known.add(name)
        _TRIED.add(info.node)
        return HostSpec(info.name, info.isolation, info.slots, {}), _watched(actor, info), info


def _watched(actor: Any, info: HostInfo) -> RayHost:
    host = RayHost(actor, info.name, info.pid, info.node, info.address)
    host.watch()
    return host
