"""Starting, finding and ending the actors of a cluster, from any process that is connected to Ray."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import ray
from ray.exceptions import RayError

from actors.config import NAMESPACE, ClusterConfig
from actors.hosts import HostDied, HostHandle
from actors.local_orders import LocalLines
from actors.orders import HostInfo, PlacementError, ReserveOrder, Running
from actors.quotas import Ask, Lease
from actors.ray_supervisor import SUPERVISOR, SupervisorProcess
from eventstore.meter import Figures

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds an answer may take beyond what was asked."""
START_TIMEOUT = 180.0
"""Seconds the supervisor and the first hosts may take to start: a minute is not enough everywhere."""
RESERVE_TIMEOUT = 60.0
"""Seconds a fresh host may take that somebody waits for."""
_HEAD = "node:__internal_head__"
"""The resource that Ray gives the node of its head."""
CALLS_MAX = 10_000
"""Open calls at the supervisor: one long poll a replica, and placements."""


class RaySupervisor:
    """`SupervisorHandle` over the Ray actor, which is started where there is none."""

    def __init__(self, config: ClusterConfig) -> None:
        # Ray adds `remote` to methods at run time; no type checker sees it.
        self._actor: Any = (
            ray.remote(SupervisorProcess)
            .options(
                name=SUPERVISOR,
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                # Beside Ray's head, which nothing outlives: then no other node's death takes it along, and
                # those that the node ran are missed at once.
                resources={_HEAD: 0.001},
                max_restarts=-1,
                max_concurrency=CALLS_MAX,
            )
            .remote(config)
        )
        self._lines = LocalLines()
        self._address = ""
        """Where it takes reservations from its own node, once that is known."""

    async def watch(self, version: int, timeout: float) -> tuple[int, list[tuple[HostInfo, HostHandle]]]:
        """See `SupervisorHandle`."""
        hosts: list[tuple[HostInfo, HostHandle]]
        version, hosts, self._address = await _answer(
            self._actor.watch.remote(version, timeout), timeout + PATIENCE
        )
        return version, hosts

    async def reserve(self, response_id: str, isolation: str, model: str) -> str:
        """See `SupervisorHandle`."""
        order = ReserveOrder(response_id, isolation, model)
        # A client waits for it, and a Ray call takes milliseconds.
        line = await self._lines.to(self._address) if self._address else None
        if line is None:
            answer = await _answer(self._actor.reserve.remote(order), RESERVE_TIMEOUT)
        else:
            answer = await _answer(line.obey(order), RESERVE_TIMEOUT)
        if isinstance(answer, PlacementError):
            raise answer
        return str(answer)

    async def host(self, name: str) -> HostHandle | None:
        """See `SupervisorHandle`."""
        handle: HostHandle | None = await _answer(self._actor.host.remote(name))
        return handle

    async def lend(self, ask: Ask) -> Lease:
        """See `SupervisorHandle`."""
        lease: Lease = await _answer(self._actor.lend.remote(ask))
        return lease

    async def running(self) -> list[tuple[HostInfo, list[Running]]]:
        """See `SupervisorHandle`."""
        running: list[tuple[HostInfo, list[Running]]] = await _answer(self._actor.running.remote())
        return running

    async def serves(self) -> tuple[str, str]:
        """Which log and which bus it was started for."""
        urls: tuple[str, str] = await _answer(self._actor.serves.remote(), START_TIMEOUT)
        return urls

    async def report(self, process: str, figures: Figures) -> None:
        """See `SupervisorHandle`."""
        await _answer(self._actor.report.remote(process, figures))

    async def figures(self) -> list[tuple[str, Figures]]:
        """See `SupervisorHandle`."""
        figures: list[tuple[str, Figures]] = await _answer(self._actor.figures.remote())
        return figures

    async def warnings(self) -> list[str]:
        """See `SupervisorHandle`."""
        warnings: list[str] = await _answer(self._actor.warnings.remote())
        return warnings

    async def capture_away(self) -> float:
        """For how many seconds JetStream has taken nothing although its server answers; 0 while it does."""
        away: float = await _answer(self._actor.capture_away.remote())
        return away


async def _answer(call: Any, timeout: float = PATIENCE) -> Any:
    try:
        return await asyncio.wait_for(call, timeout)
    except (RayError, TimeoutError) as error:
        raise HostDied(f"the supervisor does not answer ({type(error).__name__})") from error


class OtherRuntime(Exception):
    """This Ray runs a Rayspond already, for another log or bus."""

    def __str__(self) -> str:
        return (
            "this Ray runs a Rayspond with another log or NATS server: name the same ones, or end it first "
            "(`rayspond serve --address` with its settings ends it when it is stopped)"
        )


async def check(config: ClusterConfig) -> None:
    """Raise `OtherRuntime` where this Ray runs a Rayspond for another log or bus.  Starts nothing."""
    try:
        ray.get_actor(SUPERVISOR, namespace=NAMESPACE)
    except ValueError:
        return
    if await RaySupervisor(config).serves() != (config.log_url, config.nats_url):
        raise OtherRuntime


async def start(config: ClusterConfig) -> None:
    """Start the supervisor and wait until its hosts are warm.  Harmless where it runs already.

    Raises `OtherRuntime` where it runs for another log or bus.
    """
    supervisor = RaySupervisor(config)
    if await supervisor.serves() != (config.log_url, config.nats_url):
        raise OtherRuntime
    while not (await supervisor.watch(-1, START_TIMEOUT))[1]:
        log.info("no host is warm yet")


async def stop() -> None:
    """End every host, then the supervisor.  Harmless where nothing runs."""
    try:
        actor: Any = ray.get_actor(SUPERVISOR, namespace=NAMESPACE)
    except ValueError:
        return
    await actor.close.remote()
    ray.kill(actor, no_restart=True)
