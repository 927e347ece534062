"""What can go wrong with a running server: what of it dies, stands still, forgets or is kept busy."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

import httpx
import psutil

from eventstore.sql.owner_lock import read_owner
from tests.e2e.parts import HAPROXY, HOST, NATS, REPLICA, everything, named
from tests.launching import Instance
from tests.patience import PATIENCE_S
from tests.postgres_server import PostgresServer

SUPERVISOR = "ray::SupervisorProcess"
RAYLET, GCS = "raylet", "gcs_server"
BLOCKS = "blocks"
"""The agent whose tool blocks the event loop of its host."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where it happens."""

    instance: Instance
    database: PostgresServer | None
    """The log's, where it is not embedded."""


Choice = Callable[[Scene, Random], list[psutil.Process]]
Blow = Callable[[], Awaitable[None]]
Aim = Callable[[Scene, Random], Blow | None]
"""Finds what is to be struck, which takes a while; None where there is nothing."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that can go wrong."""

    aim: Aim
    ends: bool = False
    """The whole server ends of it, and has to be started again."""
    of_database: bool = False
    """It befalls a database that is a server of its own."""


# -- Whom it befalls ---------------------------------------------------------------------------------------


def _all(*names: str) -> Choice:
    return lambda scene, _: named(scene.instance, *names)


def _any(name: str) -> Choice:
    def choose(scene: Scene, chance: Random) -> list[psutil.Process]:
        found = named(scene.instance, name)
        return [chance.choice(found)] if found else []

    return choose


def _writer(scene: Scene, chance: Random) -> list[psutil.Process]:
    owner = read_owner(scene.instance.data_dir)
    if owner is None or not owner.is_alive:
        return []
    with suppress(psutil.NoSuchProcess):
        return [psutil.Process(owner.pid)]
    return []


def _supervisor_and_a_host(scene: Scene, chance: Random) -> list[psutil.Process]:
    return [*named(scene.instance, SUPERVISOR), *_any(HOST)(scene, chance)]


def _everything(scene: Scene, chance: Random) -> list[psutil.Process]:
    return everything(scene.instance)


def _database(scene: Scene, chance: Random) -> list[psutil.Process]:
    if scene.database is None or scene.database.process is None:
        return []
    server = psutil.Process(scene.database.process.pid)
    return [server, *server.children(recursive=True)]


# -- What happens ------------------------------------------------------------------------------------------


def _killed(choice: Choice, loses: str = "") -> Aim:
    """SIGKILL for all of them at once; `loses` is a folder of the data directory that is gone with them."""

    def aim(scene: Scene, chance: Random) -> Blow | None:
        victims = choice(scene, chance)

        async def strike() -> None:
            _each(victims, psutil.Process.suspend)
            if loses:
                shutil.rmtree(scene.instance.data_dir / loses, ignore_errors=True)
            _each(victims, psutil.Process.kill)

        return strike if victims else None

    return aim


def _halted(choice: Choice, seconds: float) -> Aim:
    """They stand still for so long: SIGSTOP, then SIGCONT."""

    def aim(scene: Scene, chance: Random) -> Blow | None:
        victims = choice(scene, chance)

        async def strike() -> None:
            _each(victims, psutil.Process.suspend)
            await asyncio.sleep(seconds)
            # Whoever waited for them may have ended them meanwhile.
            _each(victims, psutil.Process.resume)

        return strike if victims else None

    return aim


def _restarted(number: int) -> Aim:
    """The database is ended by a signal and started again."""

    def aim(scene: Scene, chance: Random) -> Blow | None:
        database = scene.database
        if database is None:
            return None

        async def strike() -> None:
            # In this thread, although it blocks: a database ends with the thread that started it.
            database.restart(number)

        return strike

    return aim


def _blocked(scene: Scene, chance: Random) -> Blow:
    """A tool forgets that it shares its host's event loop."""

    async def strike() -> None:
        async with httpx.AsyncClient(base_url=scene.instance.url, timeout=PATIENCE_S) as http:
            body = {"model": BLOCKS, "input": "x", "background": True}
            (await http.post("/v1/responses", json=body)).raise_for_status()

    return strike


def _each(processes: Sequence[psutil.Process], act: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            act(process)


FAULTS = {
    "host_killed": Fault(_killed(_any(HOST))),
    "writer_killed": Fault(_killed(_writer)),
    "hosts_killed": Fault(_killed(_all(HOST))),
    # Long enough to be given up.
    "host_halted": Fault(_halted(_any(HOST), 6)),
    "writer_halted": Fault(_halted(_writer, 6)),
    "hosts_halted": Fault(_halted(_all(HOST), 6)),
    # Too short for anybody to be given up.
    "host_stutters": Fault(_halted(_any(HOST), 0.7)),
    "loop_blocked": Fault(_blocked),
    "replica_killed": Fault(_killed(_any(REPLICA))),
    "haproxy_killed": Fault(_killed(_all(HAPROXY))),
    "supervisor_killed": Fault(_killed(_all(SUPERVISOR))),
    # Nobody watches when the host dies.
    "supervisor_and_host_killed": Fault(_killed(_supervisor_and_a_host)),
    "nats_killed": Fault(_killed(_all(NATS))),
    "nats_halted": Fault(_halted(_all(NATS), 5)),
    "nats_emptied": Fault(_killed(_all(NATS), loses="nats/jetstream")),
    "raylet_halted": Fault(_halted(_all(RAYLET), 6)),
    "raylet_killed": Fault(_killed(_all(RAYLET)), ends=True),
    "gcs_killed": Fault(_killed(_all(GCS)), ends=True),
    "everything_killed": Fault(_killed(_everything), ends=True),
    "database_restarted": Fault(_restarted(signal.SIGINT), of_database=True),
    "database_fell": Fault(_restarted(signal.SIGQUIT), of_database=True),
    "database_halted": Fault(_halted(_database, 5), of_database=True),
}


def names_for(*, database: bool) -> list[str]:
    """The faults that can befall a server whose log is, or is not, in a database of its own."""
    return [name for name, fault in FAULTS.items() if database or not fault.of_database]
