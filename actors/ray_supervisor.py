"""The supervisor as a Ray actor: one a cluster, detached, restarted by Ray, found by its name."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from actors.config import ClusterConfig
from actors.hosts import HostHandle
from actors.local_orders import LocalOrders
from actors.orders import CancelOrder, DeleteOrder, HostInfo, PlacementError, ReserveOrder, Running
from actors.quotas import Ask, Lease
from eventstore.meter import Figures

log = logging.getLogger(__name__)

SUPERVISOR = "supervisor"


class SupervisorProcess:
    """What Ray instantiates.  It starts itself at the first call, and again at the first after a restart."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._parts: Any = None
        self._line = LocalOrders(self.reserve)
        self._lock = asyncio.Lock()

    async def watch(self, version: int, timeout: float) -> tuple[int, list[tuple[HostInfo, HostHandle]], str]:
        """See `Supervisor.watch`; and the address at which processes of its node reserve."""
        supervisor = await self._supervisor()
        version, hosts = await supervisor.watch(version, timeout)
        return version, hosts, self._line.address

    async def reserve(self, order: ReserveOrder) -> str | PlacementError:
        """See `Supervisor.reserve`; a refusal is returned."""
        try:
            name: str = await (await self._supervisor()).reserve(
                order.response_id, order.isolation, order.model
            )
        except PlacementError as refusal:
            return refusal
        return name

    async def host(self, name: str) -> HostHandle | None:
        """See `Supervisor.host`."""
        handle: HostHandle | None = (await self._supervisor()).host(name)
        return handle

    async def running(self) -> list[tuple[HostInfo, list[Running]]]:
        """See `Supervisor.running`."""
        running: list[tuple[HostInfo, list[Running]]] = await (await self._supervisor()).running()
        return running

    async def lend(self, ask: Ask) -> Lease:
        """See `Ledger.lend`."""
        lease: Lease = (await self._supervisor()).ledger.lend(ask)
        return lease

    async def command(self, order: CancelOrder | DeleteOrder) -> Exception | None:
        """See `Supervisor.command`."""
        refusal: Exception | None = await (await self._supervisor()).command(order)
        return refusal

    async def state(self, response_id: str) -> bytes | None:
        """See `ResponseView.state`."""
        await self._supervisor()
        state: bytes | None = await self._parts.view.state(response_id)
        return state

    async def events(self, response_id: str, after: int, timeout: float) -> tuple[list[bytes], bool]:
        """See `ResponseView.events`."""
        await self._supervisor()
        events: tuple[list[bytes], bool] = await self._parts.view.events(response_id, after, timeout)
        return events

    async def serves(self) -> tuple[str, str]:
        """Which log and which bus it was started for."""
        return self._config.log_url, self._config.nats_url

    async def pid(self) -> int:
        """The process that watches over the cluster."""
        await self._supervisor()
        return os.getpid()

    async def report(self, process: str, figures: Figures) -> None:
        """See `Census.report`."""
        (await self._supervisor()).census.report(process, figures)

    async def figures(self) -> list[tuple[str, Figures]]:
        """See `Supervisor.figures`."""
        figures: list[tuple[str, Figures]] = await (await self._supervisor()).figures()
        return figures

    async def warnings(self) -> list[str]:
        """See `SupervisorParts.warnings`."""
        await self._supervisor()
        warnings: list[str] = self._parts.warnings()
        return warnings

    async def capture_away(self) -> float:
        """See `Relay.capture_away`."""
        await self._supervisor()
        away: float = self._parts.capture_away()
        return away

    async def close(self) -> None:
        """End every host."""
        async with self._lock:
            if self._parts is not None:
                self._line.close()
                await self._parts.close()

    async def _supervisor(self) -> Any:
        async with self._lock:
            if self._parts is None:
                # Imported in the worker only: the driver that defines the class needs none of it.
                from actors.supervisor_parts import SupervisorParts

                self._parts = await SupervisorParts.open(self._config)
                await self._line.open()
            return self._parts.supervisor
