"""Children of the bench: started, waited for, ended with all their descendants."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

START_TIMEOUT = 120.0
STOP_TIMEOUT = 30.0

KINDS: Final = {
    "ray::HostProcess": "hosts",
    "ray::ServeReplica": "replicas",
    "ray::SupervisorProcess": "supervisor",
    "nats-server": "NATS",
    "haproxy": "HAProxy",
    "gcs_server": "GCS",
}
"""What a process does, by how its name begins."""
REST: Final = "Ray and the rest"


@contextlib.contextmanager
def child(
    command: Sequence[str], ready_url: str, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[psutil.Process]:
    """Run a command until the block ends; the block begins once `ready_url` answers 200.

    Raises `RuntimeError` with the end of its output where it does not come up.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )
    watched = psutil.Process(process.pid)
    descendants: dict[int, psutil.Process] = {}
    try:
        _until_ready(process, ready_url, log)
        yield watched
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            descendants = {one.pid: one for one in watched.children(recursive=True)}
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
        for one in descendants.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def _until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{url} did not come up; the end of {log}:\n{tail}")


def pss_mib(process: psutil.Process) -> float:
    """Proportional memory of a process and all its descendants, MiB."""
    return sum(pss_mib_by_kind(process).values())


def pss_mib_by_kind(process: psutil.Process) -> dict[str, float]:
    """The same, by what they do."""
    used: dict[str, float] = {}
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            kind = kind_of(one)
            used[kind] = used.get(kind, 0.0) + one.memory_full_info().pss / 2**20
    return used


def cpu_seconds(process: psutil.Process) -> dict[str, float]:
    """What a process and all its descendants used of the processors so far, by what they do.

    What has ended is in no sum any more.
    """
    used: dict[str, float] = {}
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            kind, times = kind_of(one), one.cpu_times()
            used[kind] = used.get(kind, 0.0) + times.user + times.system
    return used


def kind_of(process: psutil.Process) -> str:
    """What a process does."""
    name = " ".join(process.cmdline()[:1]).rpartition("/")[2]
    return next((kind for begin, kind in KINDS.items() if name.startswith(begin)), REST)
