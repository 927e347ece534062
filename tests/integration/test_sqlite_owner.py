"""Real processes share one SQLite log while its owner is killed, stopped and replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from eventstore.sql.owner_lock import ProcessIdentity, read_owner
from eventstore.sql.sqlite import SqliteEventStore
from eventstore.verify import Finding, verify
from tests.patience import PATIENCE_S

_WORKER = Path(__file__).with_name("sqlite_worker.py")


class Worker:
    """One process of `sqlite_worker.py`."""

    def __init__(self, data_dir: Path, name: str) -> None:
        self._acknowledged = data_dir.parent / f"{name}.acks"
        self.process = subprocess.Popen(
            [sys.executable, str(_WORKER), str(data_dir), name, str(self._acknowledged)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    @property
    def acknowledged(self) -> list[tuple[str, int]]:
        """(stream, version) of every append that the store said was recorded."""
        lines = self._acknowledged.read_text().splitlines() if self._acknowledged.exists() else []
        return [(stream, int(version)) for stream, version in (line.split() for line in lines)]

    def end(self) -> int:
        """Let it finish what it does."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(PATIENCE_S)


@contextmanager
def workers(data_dir: Path, *names: str) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        started: list[Worker] = []
        for name in names:
            worker = Worker(data_dir, name)
            stack.callback(_close, worker)
            started.append(worker)
        for worker in started:
            worker.wait_until_ready()
        yield started


def _close(worker: Worker) -> None:
    worker.kill()
    for pipe in (worker.process.stdin, worker.process.stdout):
        if pipe is not None:
            pipe.close()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def owner_among(data_dir: Path, running: list[Worker]) -> Worker | None:
    owner = read_owner(data_dir)
    return next((w for w in running if owner is not None and w.process.pid == owner.pid), None)


def wait_for_owner(data_dir: Path, running: list[Worker]) -> Worker:
    wait_until(lambda: owner_among(data_dir, running) is not None, "one of the living owns the log")
    owner = owner_among(data_dir, running)
    assert owner is not None
    return owner


def wait_for_progress(running: list[Worker], appends: int = 50) -> None:
    """Every one of them has recorded so much more."""
    before = {worker: len(worker.acknowledged) for worker in running}
    wait_until(lambda: all(len(w.acknowledged) >= n + appends for w, n in before.items()), "they go on")


async def check_log(data_dir: Path, all_workers: list[Worker]) -> None:
    """What was acknowledged is there, once and in its place, and every chain and position verifies."""
    store = await SqliteEventStore.open(data_dir, may_own=True)
    try:
        acknowledged = {entry for worker in all_workers for entry in worker.acknowledged}
        last: dict[str, int] = {}
        for stream, version in acknowledged:
            last[stream] = max(version, last.get(stream, -1))
        for stream, version in last.items():
            found = [data async for record in store.read(stream) for data in record.payload or ()]
            assert found == [f"{stream}:{n}".encode() for n in range(len(found))]
            # The writer was killed, or asked to end, with at most one append on its way.
            assert version < len(found) <= version + 2
        reports = [report async for report in verify(store)]
        assert len(reports) >= len(last)
        assert not [r for r in reports if isinstance(r, Finding) or r.finding is not None]
    finally:
        await store.aclose()


async def test_an_owner_killed_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Three owners in a row are killed; those who live go on within the same calls."""
    data_dir = tmp_path / "data"
    with workers(data_dir, "a", "b", "c", "d") as all_workers:
        running = list(all_workers)
        for _ in range(3):
            wait_for_progress(running)
            owner = wait_for_owner(data_dir, running)
            owner.kill()
            running.remove(owner)
            wait_for_progress(running)
        assert [worker.end() for worker in running] == [0]
        await check_log(data_dir, all_workers)


async def test_a_stopped_owner_is_ended_and_succeeded(tmp_path: Path) -> None:
    """A process that hangs keeps the lock: the others end it, by its number and the time it was started."""
    data_dir = tmp_path / "data"
    with workers(data_dir, "a", "b", "c") as all_workers:
        running = list(all_workers)
        owner = wait_for_owner(data_dir, running)
        wait_for_progress(running)
        owner.process.send_signal(signal.SIGSTOP)
        running.remove(owner)
        wait_for_progress(running)
        assert owner.process.wait(PATIENCE_S) == -signal.SIGKILL
        assert wait_for_owner(data_dir, running) in running
        assert [worker.end() for worker in running] == [0, 0]
        await check_log(data_dir, all_workers)


async def test_everybody_killed_at_once_leaves_a_log_that_opens_and_verifies(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    for round_ in range(2):
        with workers(data_dir, f"a{round_}", f"b{round_}") as running:
            wait_for_progress(running)
            for worker in running:
                worker.process.kill()
            for worker in running:
                worker.process.wait(PATIENCE_S)
            await check_log(data_dir, running)


async def test_a_clean_end_of_the_owner_is_noticed_by_nobody(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with workers(data_dir, "a", "b") as all_workers:
        wait_for_progress(all_workers)
        owner = wait_for_owner(data_dir, all_workers)
        assert owner.end() == 0
        (other,) = [worker for worker in all_workers if worker is not owner]
        wait_for_progress([other])
        assert wait_for_owner(data_dir, [other]) is other
        assert other.end() == 0
        await check_log(data_dir, all_workers)


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    """Only the very process that was named is ever killed."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        found = ProcessIdentity.of(child.pid)
        assert found is not None
        earlier = ProcessIdentity(found.pid, found.started - 1, found.boot)
        assert not earlier.is_alive
        assert earlier.kill()
        assert found.is_alive
        assert child.poll() is None
        assert found.kill()
        assert not found.is_alive
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("depth", [1, 8])
async def test_a_data_directory_may_lie_deep(tmp_path: Path, depth: int) -> None:
    """A unix socket's name ends at 108 bytes; the path of the data directory does not."""
    data_dir = tmp_path.joinpath(*["a-rather-long-name-for-a-directory"] * depth)
    owner = await SqliteEventStore.open(data_dir, may_own=True)
    client = await SqliteEventStore.open(data_dir, may_own=False)
    try:
        assert (owner.is_owner, client.is_owner) == (True, False)
        await client.renew("host-1", 3.0)
        assert os.stat(data_dir / "log.sock").st_mode & 0o777 == 0o600
        assert os.stat(data_dir / "log.db").st_mode & 0o777 == 0o600
    finally:
        await client.aclose()
        await owner.aclose()
