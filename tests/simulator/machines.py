"""Ray and Serve as the runtime sees them: hosts, the supervisor, replicas, and how they come and go."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from actors.client import RuntimeClient
from actors.config import ClusterConfig
from actors.host import ActorHost
from actors.host_parts import HostParts
from actors.hosts import HostDied, HostHandle, HostSpec
from actors.lease import LeaseKeeper
from actors.orders import Answer, HostInfo, Order, Running
from actors.quotas import Ask, Lease
from actors.relay import response_relay
from actors.response_actor import ActorIdentity, ActorPorts
from actors.supervisor import Supervisor
from eventstore.errors import EventStoreError
from eventstore.meter import Figures
from runtime.model import JSON, Model
from runtime.sealing import Seal
from tests.simulator.chance import EPOCH
from tests.simulator.loop import NOWHERE, Process, SimulatedLoop
from tests.simulator.network import Ether, SimulatedLiveBus, SimulatedPublicBus, call, travelled
from tests.simulator.store import Database, SimulatedStore
from tests.simulator.tools import SimulatedTool, Till
from tests.simulator.upstream import Provider, SimulatedModel
from tests.simulator.weather import Weather

T = TypeVar("T")
log = logging.getLogger(__name__)


class World:
    """All of it: the machines, and what lies between them."""

    def __init__(self, config: ClusterConfig, weather: Weather) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        self.loop = loop
        self.config = config
        self.weather = weather
        self.database = Database(weather)
        self.ether = Ether(weather, self.database.log)
        self.public = SimulatedPublicBus(weather)
        self.provider = Provider(weather)
        self.till = Till(weather)
        self.hosts: list[SimulatedHost] = []
        self.supervisor = SupervisorMachine(self)
        self.replicas = [ReplicaMachine(self, number) for number in range(2)]

    def now(self) -> float:
        """Seconds since 1970 UTC."""
        return EPOCH + self.loop.time()

    def store(self) -> SimulatedStore:
        """A connection to the log."""
        return SimulatedStore(self.database)

    def living_hosts(self) -> list[SimulatedHost]:
        """Those that are not dead; they may be stopped."""
        return [host for host in self.hosts if host.process.alive]

    def ports(self, process: Process, spec: HostSpec) -> ActorPorts:
        """What a host reaches the world by."""

        def open_model(agent: Mapping[str, JSON]) -> Model:
            return SimulatedModel(self.provider, process)

        return ActorPorts(
            store=self.store(),
            bus=SimulatedLiveBus(self.ether, process),
            open_model=open_model,
            now=self.now,
            sleep=asyncio.sleep,
            host=ActorIdentity(spec.name, spec.actor, "node-1", len(self.hosts)),
            seal=Seal("the simulator"),
            open_tool=partial(SimulatedTool, self.till),
        )


class SimulatedHost:
    """A host process, and the handle that others have of it."""

    def __init__(self, world: World, spec: HostSpec) -> None:
        self._world = world
        self.spec = spec
        self.process = world.loop.process(spec.name)
        self.blocked = False
        """Whether something blocks its event loop; its lease is renewed all the same, from a thread."""
        self.is_near = world.weather.chance.random() < 0.5
        """Whether it runs on the supervisor's node: there its death is seen at once, and it can be killed
        while it is stopped."""
        self.is_lost = False
        """Whether Ray says that it is dead, as of all on a node that it does not hear, though it runs."""
        self.host: ActorHost | None = None

    def __repr__(self) -> str:
        return f"Host({self.spec.name})"

    async def boot(self) -> None:
        """Come up, as `HostParts.open` does."""
        world, name = self._world, self.spec.name
        ports = world.ports(self.process, self.spec)
        await ports.store.renew(name, world.config.lease_ttl)
        host = ActorHost(
            ports,
            isolation=self.spec.isolation,
            slots=self.spec.slots,
            queue_limit=world.config.queue_limit,
        )
        store = world.store()
        interval = world.config.lease_ttl / 3
        keeper = LeaseKeeper(lambda: store.renew_now(name, world.config.lease_ttl), self._lost, interval)
        self._parts = HostParts(host, keeper)
        world.loop.call_later(interval, self._beat, keeper, interval, context=NOWHERE)
        self.host = host

    def _beat(self, keeper: LeaseKeeper, interval: float) -> None:
        """What the keeper's thread does."""
        if not self.process.alive:
            return
        if self.process.stopped and not self.blocked:
            self._world.loop.call_later(0.05, self._beat, keeper, interval, context=NOWHERE)
        elif keeper.beat():
            self._world.loop.call_later(interval, self._beat, keeper, interval, context=NOWHERE)

    def _lost(self) -> None:
        log.info("%r ends: its lease was taken away", self)
        self.process.kill()

    # -- The handle ----------------------------------------------------------------------------------------

    async def obey(self, orders: Sequence[Order]) -> Answer:
        """See `HostHandle`."""

        async def work() -> Answer:
            return travelled(await self._running_host().obey(travelled(orders)))

        return await self._call(work)

    async def info(self) -> HostInfo:
        """See `HostHandle`."""

        async def work() -> HostInfo:
            return self._running_host().info()

        return await self._call(work)

    async def running(self) -> list[Running]:
        """See `HostHandle`."""

        async def work() -> list[Running]:
            return self._running_host().running()

        return await self._call(work)

    async def figures(self) -> Figures:
        """See `HostHandle`.  Everything counts in one process here, and the supervisor tells its figures."""

        async def work() -> Figures:
            return ()

        return await self._call(work)

    def gone(self) -> bool:
        """See `HostHandle`."""
        return self.is_near and not self.process.alive

    def kill(self) -> None:
        """See `HostHandle`."""
        if self.is_near:
            self.process.kill()
        elif not self.is_lost:
            # A stopped process far away hears it when it goes on, or a little later.
            self._world.loop.call_later(self._world.weather.between(0, 3), self._hear_kill, context=NOWHERE)

    def _hear_kill(self) -> None:
        if self.process.stopped:
            self._world.loop.call_later(self._world.weather.between(0.1, 3), self._hear_kill, context=NOWHERE)
        else:
            self.process.kill()

    def _running_host(self) -> ActorHost:
        assert self.host is not None
        return self.host

    async def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        if self.is_lost:
            raise HostDied(f"{self!r}: its node is taken for dead")
        return await call(self._world.weather, self.process, work)


class SimulatedFactory:
    """`HostFactory`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: set[str] = set()
        self._missed: Counter[str] = Counter()

    async def start(self, spec: HostSpec) -> SimulatedHost:
        """See `HostFactory`."""
        world = self._world
        self._known.add(spec.actor)
        await asyncio.sleep(world.weather.between(0.1, 1.0))
        if any(host.spec.actor == spec.actor and not host.is_lost for host in world.living_hosts()):
            raise HostDied(f"{spec.name} did not start: its name is taken")
        if world.weather.happens(world.weather.starts_fail):
            raise HostDied(f"{spec.name} did not start: the simulation says so")
        host = SimulatedHost(world, spec)
        world.hosts.append(host)
        booted: asyncio.Future[None] = world.loop.create_future()

        async def boot() -> None:
            try:
                await host.boot()
            except EventStoreError as error:
                if not booted.done():
                    booted.set_exception(HostDied(f"{spec.name} did not start: {error}"))
            else:
                if not booted.done():
                    booted.set_result(None)

        def died() -> None:
            if not booted.done():
                booted.set_exception(HostDied(spec.name))

        host.process.run(boot())
        host.process.on_death(died)
        try:
            async with asyncio.timeout(20):
                await booted
        except (TimeoutError, HostDied) as error:
            host.process.kill()
            raise HostDied(f"{spec.name} did not start") from error
        except asyncio.CancelledError:
            host.process.kill()
            raise
        return host

    async def found(self) -> Sequence[tuple[HostSpec, HostHandle, HostInfo]]:
        """See `HostFactory`."""
        answers: list[tuple[HostSpec, HostHandle, HostInfo]] = []
        for host in self._world.living_hosts():
            if host.spec.actor in self._known or host.host is None:
                continue
            try:
                info = await asyncio.wait_for(host.info(), 1.0)
            except (TimeoutError, HostDied):
                self._missed[host.spec.actor] += 1
                if self._missed[host.spec.actor] >= 3:
                    host.kill()
            else:
                self._known.add(host.spec.actor)
                answers.append((host.spec, host, info))
        return answers


class SupervisorMachine:
    """`SupervisorHandle` of whichever incarnation runs: Ray starts another when one dies.

    The relay lives beside it.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._incarnations = 0
        self._supervisor: Supervisor | None = None
        self._begin()

    def _begin(self) -> None:
        self._incarnations += 1
        self._supervisor = None
        self.process = self._world.loop.process(f"supervisor-{self._incarnations}")
        self.process.run(self._boot())
        self.process.on_death(self._died)

    def _died(self) -> None:
        delay = self._world.weather.between(0.2, 4)
        self._world.loop.call_later(delay, self._begin, context=NOWHERE)

    async def _boot(self) -> None:
        world = self._world
        while True:
            store = world.store()
            supervisor = Supervisor(world.config, store, SimulatedFactory(world), now=world.now)
            try:
                await supervisor.start()
            except (HostDied, EventStoreError, Exception) as error:  # noqa: BLE001  (the next call tries again)
                log.info("%r did not come up: %s", self.process, error)
                await asyncio.sleep(0.5)
                continue
            break
        self._supervisor = supervisor
        await response_relay(store, SimulatedLiveBus(world.ether, self.process), world.public).run()

    async def watch(self, version: int, timeout: float) -> tuple[int, list[tuple[HostInfo, HostHandle]]]:
        """See `SupervisorHandle`."""
        return await self._call(lambda supervisor: supervisor.watch(version, timeout))

    async def reserve(self, response_id: str, isolation: str, model: str) -> str:
        """See `SupervisorHandle`."""
        return await self._call(lambda supervisor: supervisor.reserve(response_id, isolation, model))

    async def host(self, name: str) -> HostHandle | None:
        """See `SupervisorHandle`."""

        async def look(supervisor: Supervisor) -> HostHandle | None:
            return supervisor.host(name)

        return await self._call(look)

    async def lend(self, ask: Ask) -> Lease:
        """See `SupervisorHandle`."""

        async def lent(supervisor: Supervisor) -> Lease:
            return supervisor.ledger.lend(ask)

        return await self._call(lent)

    async def running(self) -> list[tuple[HostInfo, list[Running]]]:
        """See `SupervisorHandle`."""
        return await self._call(lambda supervisor: supervisor.running())

    async def report(self, process: str, figures: Figures) -> None:
        """See `SupervisorHandle`."""

        async def take(supervisor: Supervisor) -> None:
            supervisor.census.report(process, figures)

        await self._call(take)

    async def figures(self) -> list[tuple[str, Figures]]:
        """See `SupervisorHandle`."""

        async def tell(supervisor: Supervisor) -> list[tuple[str, Figures]]:
            return await supervisor.figures()

        return await self._call(tell)

    async def warnings(self) -> list[str]:
        """See `SupervisorHandle`."""
        return []

    async def _call(self, work: Callable[[Supervisor], Awaitable[T]]) -> T:
        async def carry_out() -> T:
            if self._supervisor is None:
                raise HostDied("the supervisor is not up yet")
            return await work(self._supervisor)

        return await call(self._world.weather, self.process, carry_out)


@dataclass(eq=False)
class ReplicaMachine:
    """A Serve replica; Serve starts another when it dies."""

    world: World
    number: int
    incarnations: int = 0
    client: RuntimeClient | None = None

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.incarnations += 1
        self.client = None
        self.process = self.world.loop.process(f"replica-{self.number}.{self.incarnations}")
        self.process.run(self._boot())
        self.process.on_death(self._died)

    def _died(self) -> None:
        delay = self.world.weather.between(0.2, 4)
        self.world.loop.call_later(delay, self._begin, context=NOWHERE)

    async def _boot(self) -> None:
        world = self.world
        self.store = world.store()
        self.bus = SimulatedLiveBus(world.ether, self.process)
        client = RuntimeClient(world.config, self.store, self.bus, world.supervisor)
        await client.start()
        self.client = client
