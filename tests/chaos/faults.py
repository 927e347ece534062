"""What can go wrong with a running server: which of its processes die or stand still."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil

from eventstore.sql.owner_lock import read_owner
from tests.e2e.parts import HAPROXY, HOST, NATS, REPLICA, named
from tests.launching import Instance

SUPERVISOR = "ray::SupervisorProcess"

Choice = Callable[[Instance, Random], list[psutil.Process]]


def _all(*names: str) -> Choice:
    return lambda instance, chance: named(instance, *names)


def _any(name: str) -> Choice:
    def choose(instance: Instance, chance: Random) -> list[psutil.Process]:
        found = named(instance, name)
        return [chance.choice(found)] if found else []

    return choose


def _writer(instance: Instance, chance: Random) -> list[psutil.Process]:
    owner = read_owner(instance.data_dir)
    if owner is None or not owner.is_alive:
        return []
    with suppress(psutil.NoSuchProcess):
        return [psutil.Process(owner.pid)]
    return []


def _supervisor_and_a_host(instance: Instance, chance: Random) -> list[psutil.Process]:
    return [*named(instance, SUPERVISOR), *_any(HOST)(instance, chance)]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that can go wrong."""

    victims: Choice
    halted_s: float | None = None
    """They stand still for so long (SIGSTOP, SIGCONT); without it they are killed (SIGKILL)."""
    loses: str = ""
    """A folder in the data directory that is gone with them."""

    async def strike(self, victims: Sequence[psutil.Process], data_dir: Path) -> None:
        """Let it happen to all of them at once."""
        _each(victims, psutil.Process.suspend)
        if self.halted_s is not None:
            await asyncio.sleep(self.halted_s)
            # Whoever waited for them may have ended them meanwhile.
            _each(victims, psutil.Process.resume)
            return
        if self.loses:
            shutil.rmtree(data_dir / self.loses, ignore_errors=True)
        _each(victims, psutil.Process.kill)


def _each(processes: Sequence[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            act(process)


FAULTS = {
    "host_killed": Fault(_any(HOST)),
    "writer_killed": Fault(_writer),
    "hosts_killed": Fault(_all(HOST)),
    # Long enough to be given up.
    "host_halted": Fault(_any(HOST), halted_s=6),
    "writer_halted": Fault(_writer, halted_s=6),
    "hosts_halted": Fault(_all(HOST), halted_s=6),
    # Too short for anybody to be given up.
    "host_stutters": Fault(_any(HOST), halted_s=0.7),
    "replica_killed": Fault(_any(REPLICA)),
    "haproxy_killed": Fault(_all(HAPROXY)),
    "supervisor_killed": Fault(_all(SUPERVISOR)),
    # Nobody watches when the host dies.
    "supervisor_and_host_killed": Fault(_supervisor_and_a_host),
    "nats_killed": Fault(_all(NATS)),
    "nats_halted": Fault(_all(NATS), halted_s=5),
    "nats_emptied": Fault(_all(NATS), loses="nats/jetstream"),
}
RESTART = "everything_killed"
"""The server is killed whole and started again on its data: the driver's own business."""
