"""What can go wrong with a running server, each as one function of it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

import psutil

from eventstore.sql.owner_lock import read_owner
from tests.e2e.parts import HAPROXY, HOST, NATS, REPLICA, named
from tests.launching import Instance

SUPERVISOR = "ray::SupervisorProcess"

Fault = Callable[[Instance, Random], Awaitable[None]]


def _one(instance: Instance, chance: Random, name: str) -> list[psutil.Process]:
    found = named(instance, name)
    return [chance.choice(found)] if found else []


def _writer(instance: Instance) -> list[psutil.Process]:
    owner = read_owner(instance.data_dir)
    return [psutil.Process(owner.pid)] if owner is not None and owner.is_alive else []


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


async def _halt(processes: list[psutil.Process], seconds: float) -> None:
    """SIGSTOP, and SIGCONT for those that were not ended for it."""
    for process in processes:
        with suppress(psutil.Error):
            process.suspend()
    await asyncio.sleep(seconds)
    for process in processes:
        with suppress(psutil.Error):
            process.resume()


async def host_killed(instance: Instance, chance: Random) -> None:
    """Any of the hosts."""
    _kill(_one(instance, chance, HOST))


async def writer_killed(instance: Instance, chance: Random) -> None:
    """The process that writes the log."""
    _kill(_writer(instance))


async def hosts_killed(instance: Instance, chance: Random) -> None:
    """All of them at once."""
    _kill(named(instance, HOST))


async def host_halted(instance: Instance, chance: Random) -> None:
    """For long enough to be given up."""
    await _halt(_one(instance, chance, HOST), 6)


async def writer_halted(instance: Instance, chance: Random) -> None:
    """The process that writes the log, for long enough to be given up."""
    await _halt(_writer(instance), 6)


async def hosts_halted(instance: Instance, chance: Random) -> None:
    """All of them at once."""
    await _halt(named(instance, HOST), 6)


async def host_stutters(instance: Instance, chance: Random) -> None:
    """Too short a pause for anybody to be given up."""
    await _halt(_one(instance, chance, HOST), 0.7)


async def replica_killed(instance: Instance, chance: Random) -> None:
    """Its clients come back to another one."""
    _kill(_one(instance, chance, REPLICA))


async def haproxy_killed(instance: Instance, chance: Random) -> None:
    """Every connection breaks."""
    _kill(named(instance, HAPROXY))


async def supervisor_killed(instance: Instance, chance: Random) -> None:
    """Ray starts it again; hosts go on meanwhile."""
    _kill(named(instance, SUPERVISOR))


async def supervisor_and_host_killed(instance: Instance, chance: Random) -> None:
    """Nobody watches when a host dies."""
    _kill([*named(instance, SUPERVISOR), *_one(instance, chance, HOST)])


async def nats_killed(instance: Instance, chance: Random) -> None:
    """It is started again by itself."""
    _kill(named(instance, NATS))


async def nats_halted(instance: Instance, chance: Random) -> None:
    """It says nothing for a while."""
    await _halt(named(instance, NATS), 5)


async def nats_emptied(instance: Instance, chance: Random) -> None:
    """It is started again without anything that it kept."""
    servers = named(instance, NATS)
    for server in servers:
        with suppress(psutil.Error):
            server.suspend()
    shutil.rmtree(instance.data_dir / "nats" / "jetstream", ignore_errors=True)
    _kill(servers)


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        host_killed,
        writer_killed,
        hosts_killed,
        host_halted,
        writer_halted,
        hosts_halted,
        host_stutters,
        replica_killed,
        haproxy_killed,
        supervisor_killed,
        supervisor_and_host_killed,
        nats_killed,
        nats_halted,
        nats_emptied,
    )
}
RESTART = "everything_killed"
"""The server is killed whole and started again on its data: the driver's own business."""
