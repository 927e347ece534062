"""Who owns the data directory: one process, by `flock`; the file says which, so that a dead one can be told.

Linux only, like the rest of the embedded log: identities come from /proc.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

LOCK: Final = "log.lock"

_DEATH_PATIENCE_S: Final = 5.0
_POLL_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, never to be confused with a later one of the same number."""

    pid: int
    started: int
    """Clock ticks between the boot and its start."""
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The living process with this number, or None.  A zombie is dead: it holds nothing any more."""
        fields = _stat(pid)
        if fields is None or fields[0] in "ZX":
            return None
        return cls(pid, int(fields[19]), Path("/proc/sys/kernel/random/boot_id").read_text().strip())

    @property
    def is_alive(self) -> bool:
        """Whether exactly this process still runs, stopped or not."""
        return ProcessIdentity.of(self.pid) == self

    @property
    def is_stopped(self) -> bool:
        """Whether a signal or a debugger halted it."""
        fields = _stat(self.pid)
        return self.is_alive and fields is not None and fields[0] in "tT"

    def kill(self) -> bool:
        """End it, and say whether it is gone.  Blocks for at most 5 s; never touches another process."""
        if self.pid == os.getpid():
            return False
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            # The handle cannot come to mean another process between the look and the blow.
            if self.is_alive:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            return True
        finally:
            os.close(handle)
        deadline = time.monotonic() + _DEATH_PATIENCE_S
        while self.is_alive and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return not self.is_alive


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat behind the name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


class OwnerLock:
    """The held lock on a data directory."""

    def __init__(self, file: int) -> None:
        self._file: int | None = file
        # A forked child would keep the lock alive beyond its owner's death.
        os.register_at_fork(after_in_child=self._close)

    @classmethod
    def try_take(cls, data_dir: Path) -> OwnerLock | None:
        """The lock, if nobody holds it.  A former owner that lost it and still runs is ended first."""
        file = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        former = read_owner(data_dir)
        me = ProcessIdentity.of(os.getpid())
        assert me is not None, "this process is alive"
        if former is not None and former != me and former.is_alive and not former.kill():
            os.close(file)
            return None
        os.ftruncate(file, 0)
        os.pwrite(file, orjson.dumps({"pid": me.pid, "started": me.started, "boot": me.boot}), 0)
        return cls(file)

    def release(self) -> None:
        """Let another process own the directory.  Idempotent."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def read_owner(data_dir: Path) -> ProcessIdentity | None:
    """The process that took the lock last and did not release it; it may be dead."""
    try:
        fields = orjson.loads((data_dir / LOCK).read_bytes())
        return ProcessIdentity(fields["pid"], fields["started"], fields["boot"])
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
        return None
