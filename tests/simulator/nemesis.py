"""What goes wrong at a moment: processes that die, hang and go on, the log and the bus that are away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from tests.simulator.loop import NOWHERE, Process
from tests.simulator.machines import SimulatedHost, World

log = logging.getLogger(__name__)

ROUND_SECONDS: Final = 0.25


class Nemesis:
    """Strikes at the rates that the weather names, until it is told to stop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._weather = world.weather
        self._away = 0
        self._silent = 0

    async def rage(self, seconds: float) -> None:
        """Let things go wrong for so long."""
        blows: dict[str, Callable[[], None]] = {
            "host_kills": self._kill_host,
            "host_stops": lambda: self._stop_host(blocked=False),
            "host_losses": self._lose_host,
            "loop_blocks": lambda: self._stop_host(blocked=True),
            "supervisor_kills": lambda: self._kill(self._world.supervisor.process),
            "supervisor_stops": lambda: self._stop(self._world.supervisor.process),
            "replica_kills": self._kill_replica,
            "store_outages": self._take_store_away,
            "bus_outages": self._take_bus_away,
            "everything_kills": self._kill_everything,
        }
        end = self._world.loop.time() + seconds
        while self._world.loop.time() < end:
            await asyncio.sleep(ROUND_SECONDS)
            for name, strike in blows.items():
                if self._weather.happens(getattr(self._weather, name) * ROUND_SECONDS):
                    strike()

    def make_peace(self) -> None:
        """Let everything be as it should, but for what is dead."""
        self._weather.clear_up()
        for process in self._world.loop.processes:
            if process.stopped:
                self._go_on(process)

    # -- Blows ---------------------------------------------------------------------------------------------

    def _kill(self, process: Process) -> None:
        log.info("%r is killed", process)
        process.kill()

    def _host(self) -> SimulatedHost | None:
        hosts = self._world.living_hosts()
        return self._weather.chance.choice(hosts) if hosts else None

    def _kill_host(self) -> None:
        if (host := self._host()) is not None:
            self._kill(host.process)

    def _lose_host(self) -> None:
        """Have Ray say that a host far away is dead.  It runs on as a zombie until it misses its lease."""
        if (host := self._host()) is not None and not host.is_near:
            log.info("%r is taken for dead", host.process)
            host.is_lost = True

    def _kill_replica(self) -> None:
        self._kill(self._weather.chance.choice(self._world.replicas).process)

    def _kill_everything(self) -> None:
        log.info("everything is killed")
        world = self._world
        for process in [host.process for host in world.living_hosts()]:
            process.kill()
        world.supervisor.process.kill()
        for replica in world.replicas:
            replica.process.kill()

    def _stop_host(self, *, blocked: bool) -> None:
        if (host := self._host()) is not None and not host.process.stopped:
            host.blocked = blocked
            self._stop(host.process)

    def _stop(self, process: Process) -> None:
        if not process.alive or process.stopped:
            return
        seconds = self._weather.chance.uniform(0.05, 12)
        log.info("%r stops for %.2f s", process, seconds)
        process.stop()
        self._world.loop.call_later(seconds, self._go_on, process, context=NOWHERE)

    def _go_on(self, process: Process) -> None:
        if process.stopped:
            log.info("%r goes on", process)
            process.go_on()

    def _take_store_away(self) -> None:
        if self._weather.store_is_away:
            return
        seconds = self._weather.between(0.05, 5)
        log.info("the log is away for %.2f s", seconds)
        self._weather.store_is_away = True
        self._world.loop.call_later(seconds, self._bring_store_back, seconds, context=NOWHERE)

    def _bring_store_back(self, seconds: float) -> None:
        self._weather.store_is_away = False
        self._world.database.stood_still += seconds

    def _take_bus_away(self) -> None:
        seconds = self._weather.between(0.05, 5)
        log.info("the bus is away for %.2f s", seconds)
        self._weather.bus_is_away = True
        self._world.loop.call_later(seconds, self._bring_bus_back, context=NOWHERE)

    def _bring_bus_back(self) -> None:
        self._weather.bus_is_away = False
