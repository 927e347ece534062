"""A cluster in one process: real hosts and a real supervisor over the memory log and bus, no Ray.

Killing a host here does what `kill -9` does: its tasks stop where they stand and nobody is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from actors.client import RuntimeClient
from actors.config import ClusterConfig
from actors.host import ActorHost
from actors.host_parts import recorded_model
from actors.hosts import HostDied, HostHandle, HostSpec
from actors.orders import Answer, HostInfo, Order, Running
from actors.quotas import Ask, Lease
from actors.response_actor import ActorIdentity, ActorPorts
from actors.supervisor import Supervisor
from eventstore.memory import MemoryEventStore, MemoryLiveBus
from eventstore.meter import Figures
from eventstore.ports import EventStore, LiveBus
from runtime.model import JSON, Model
from runtime.models.open import ModelPool
from runtime.sealing import Seal

CONFIG = ClusterConfig(
    log_url="sqlite:///unused",
    nats_url="unused",
    secret_key="the secret of the tests",
    hosts=2,
    slots=8,
    hosts_max=3,
)


class LocalHost:
    """`HostHandle` of a host in this process."""

    def __init__(self, host: ActorHost, name: str) -> None:
        self._host: ActorHost | None = host
        self._frozen = asyncio.Event()
        self._frozen.set()
        self.name = name

    async def obey(self, orders: Sequence[Order]) -> Answer:
        """See `HostHandle`."""
        return await (await self._alive()).obey(orders)

    async def info(self) -> HostInfo:
        """See `HostHandle`."""
        return (await self._alive()).info()

    async def running(self) -> list[Running]:
        """See `HostHandle`."""
        return (await self._alive()).running()

    async def figures(self) -> Figures:
        """See `HostHandle`.  All hosts here count in one process, and the supervisor tells its figures."""
        return ()

    def gone(self) -> bool:
        """See `HostHandle`."""
        return self._host is None

    def kill(self) -> None:
        """See `HostHandle`."""
        host, self._host = self._host, None
        if host is not None:
            host.crash()

    def hang(self) -> None:
        """Answer nothing from now on, as a stopped process does."""
        self._frozen.clear()

    def wake(self) -> None:
        """Answer again."""
        self._frozen.set()

    async def _alive(self) -> ActorHost:
        await self._frozen.wait()
        if self._host is None:
            raise HostDied(self.name)
        return self._host


class Parts(Protocol):
    """What hosts in this process share."""

    @property
    def config(self) -> ClusterConfig: ...
    @property
    def store(self) -> EventStore: ...
    @property
    def bus(self) -> LiveBus: ...
    def open_model(self, agent: Mapping[str, JSON], /) -> Model: ...


class LocalFactory:
    """`HostFactory` of hosts in this process."""

    def __init__(self, cluster: Parts) -> None:
        self._cluster = cluster
        self.hosts: dict[str, LocalHost] = {}
        self.started: list[HostSpec] = []
        self.left: list[HostSpec] = []
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        """How responses wait, as between two tries of a call."""

    async def start(self, spec: HostSpec) -> LocalHost:
        """See `HostFactory`."""
        cluster = self._cluster
        ports = ActorPorts(
            store=cluster.store,
            bus=cluster.bus,
            open_model=cluster.open_model,
            now=time.time,
            sleep=lambda seconds: self.sleep(seconds),
            host=ActorIdentity(host=spec.name, actor=spec.actor, node="local", pid=len(self.started)),
            seal=Seal(cluster.config.secret_key),
        )
        await cluster.store.renew(spec.name, cluster.config.lease_ttl)
        host = ActorHost(
            ports, isolation=spec.isolation, slots=spec.slots, queue_limit=cluster.config.queue_limit
        )
        self.started.append(spec)
        self.hosts[spec.name] = LocalHost(host, spec.name)
        return self.hosts[spec.name]

    def kind(self, name: str) -> str:
        """The isolation of the host of that name."""
        return next(spec.isolation for spec in self.started if spec.name == name)

    async def found(self) -> Sequence[tuple[HostSpec, HostHandle, HostInfo]]:
        """See `HostFactory`: those that live, for a supervisor that knows none of them yet."""
        left, self.left = self.left, []
        return [(spec, self.hosts[spec.name], await self.hosts[spec.name].info()) for spec in left]

    def leave(self) -> None:
        """Their supervisor died: the next one finds those that live."""
        self.left = [spec for spec in self.started if not self.hosts[spec.name].gone()]


class LocalSupervisor:
    """`SupervisorHandle` of a supervisor in this process."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.warned: list[str] = []
        self.silent = False
        """Whether it tells nobody what was counted."""

    async def watch(self, version: int, timeout: float) -> tuple[int, list[tuple[HostInfo, HostHandle]]]:
        """See `SupervisorHandle`."""
        return await self._supervisor.watch(version, timeout)

    async def reserve(self, response_id: str, isolation: str, model: str) -> str:
        """See `SupervisorHandle`."""
        return await self._supervisor.reserve(response_id, isolation, model)

    async def host(self, name: str) -> HostHandle | None:
        """See `SupervisorHandle`."""
        return self._supervisor.host(name)

    async def lend(self, ask: Ask) -> Lease:
        """See `SupervisorHandle`."""
        return self._supervisor.ledger.lend(ask)

    async def running(self) -> list[tuple[HostInfo, list[Running]]]:
        """See `SupervisorHandle`."""
        return await self._supervisor.running()

    async def report(self, process: str, figures: Figures) -> None:
        """See `SupervisorHandle`."""
        self._supervisor.census.report(process, figures)

    async def figures(self) -> list[tuple[str, Figures]]:
        """See `SupervisorHandle`."""
        if self.silent:
            raise HostDied("the supervisor does not answer")
        return await self._supervisor.figures()

    async def warnings(self) -> list[str]:
        """See `SupervisorHandle`."""
        return list(self.warned)


class LocalCluster:
    """All of it, between `async with`."""

    def __init__(self, config: ClusterConfig = CONFIG, models: Mapping[str, Model] | None = None) -> None:
        self.config = config
        self.store = MemoryEventStore()
        self.bus = MemoryLiveBus()
        self._models = models or {}
        self._pool = ModelPool({})
        self._recorded = recorded_model(self._pool)
        self.factory = LocalFactory(self)
        self.supervisor = Supervisor(config, self.store, self.factory, now=time.time)
        self.seen = LocalSupervisor(self.supervisor)
        self.client = RuntimeClient(config, self.store, self.bus, self.seen)

    def open_model(self, agent: Mapping[str, JSON]) -> Model:
        """The scripted model of that name, or what the configuration says."""
        return self._models.get(str(agent.get("id"))) or self._recorded(agent)

    async def __aenter__(self) -> LocalCluster:
        """Start."""
        await self.supervisor.start()
        await self.client.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """End everything."""
        await self.client.aclose()
        await self.supervisor.close()
        await self._pool.aclose()
