"""The processes of a server under test, by what they do."""

from __future__ import annotations

from collections.abc import Iterable

import psutil

from tests.launching import Instance, until

HOST = "ray::HostProcess"
REPLICA = "ray::ServeReplica"
NATS = "nats-server"
HAPROXY = "haproxy"


def named(instance: Instance, *names: str) -> list[psutil.Process]:
    """Those that live now, the oldest first."""
    found = [process for process in instance.note_processes() if _is(process, names)]
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


def memory(processes: Iterable[psutil.Process]) -> int:
    """Their resident bytes together."""
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def everything(server: Instance) -> list[psutil.Process]:
    """Every process of a server, the one that was started first last."""
    return [*server.note_everything(), psutil.Process(server.process.pid)]


def kill_all(server: Instance) -> None:
    """`kill -9` of every process at once; nothing is told to anybody."""
    found = everything(server)
    for process in found:
        process.suspend()
    for process in found:
        process.kill()
    server.process.wait(10)
    until(lambda: not any(_lives(process) for process in found), "the end of every process")


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is(process: psutil.Process, names: tuple[str, ...]) -> bool:
    try:
        first = " ".join(process.cmdline()[:1]).rpartition("/")[2]
        return any(first.startswith(name) or process.name() == name for name in names)
    except psutil.Error:
        return False
