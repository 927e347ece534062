"""The processes that one instance started: all of them are found and ended, whoever else died before.

Ray and HAProxy put processes into groups of their own, and some outlive their parents.  Two things hold them
together: each child of ours leads a session that its descendants stay in, and orphans come to us because we
are a subreaper.  The sessions are written down, so a later start finds what a killed one left.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

MARK: Final = "RAYSPOND_INSTANCE"
"""Environment variable that holds the data directory's id in every process we start."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_POLL_S: Final = 0.05
_FILES: Final = 65536
_KILL_WAIT_S: Final = 5.0
_CLOCK_SLACK_S: Final = 2.0

# Loaded here because a child between fork and exec must not load libraries.
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Session:
    """A session (setsid) whose leader we started."""

    id: int
    started: float
    """When its leader started, seconds since the epoch as `psutil` reports it."""
    boot: str
    """The kernel's id of this boot: after another boot the number means nothing."""
    mark: str

    def members(self) -> list[psutil.Process]:
        """The processes that are in it now."""
        if self.boot != boot_id():
            return []
        return [process for process in psutil.process_iter() if self._has(process)]

    def _has(self, process: psutil.Process) -> bool:
        try:
            if os.getsid(process.pid) != self.id or process.create_time() < self.started - _CLOCK_SLACK_S:
                return False
            # Processes that rename themselves, as Ray's workers do, overwrite their environment: an empty one
            # tells nothing, one without our mark belongs to somebody who was given the same number later.
            environment = {name: text for name, text in process.environ().items() if name and text}
            return not environment or environment.get(MARK) == self.mark
        except (psutil.Error, OSError):
            return False


def boot_id() -> str:
    """The id of the running kernel's boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def current() -> Session:
    """The session that this process leads."""
    return Session(os.getpid(), psutil.Process().create_time(), boot_id(), os.environ.get(MARK, ""))


def become_subreaper() -> None:
    """From now on orphaned descendants become our children instead of init's."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def allow_many_files() -> None:
    """Raise the soft limit on open files, for us and our children: each open stream is at least one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def start(
    command: Sequence[str],
    *,
    mark: str,
    environment: Mapping[str, str],
    log: Path,
    pipe: int | None = None,
    end_with_us: bool = False,
) -> tuple[subprocess.Popen[bytes], Session]:
    """Start `command` as the leader of a session of its own; its output is appended to `log`.

    It has a pipe as its standard input and inherits `pipe`.  `end_with_us` lets the kernel end it when this
    process dies.  Raises `OSError`.
    """
    before_exec: Callable[[], object] | None = None
    if end_with_us:
        before_exec = lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # noqa: E731  (one call)
    with log.open("ab") as output:
        # Not more than this runs between fork and exec, and no other thread exists then.
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**environment, MARK: mark},
            pass_fds=() if pipe is None else (pipe,),
            start_new_session=True,
            preexec_fn=before_exec,
        )
    return child, Session(child.pid, psutil.Process(child.pid).create_time(), boot_id(), mark)


def family(sessions: Iterable[Session], root: int | None = None) -> list[psutil.Process]:
    """Every living process of these sessions and every descendant of `root`; not `root` itself."""
    found = {process.pid: process for session in sessions for process in session.members()}
    # One look at all processes: psutil's `children` takes one for each head.
    children: defaultdict[int, list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            children[process.ppid()].append(process)
    heads = [*found, *(() if root is None else (root,))]
    while heads:
        new = [child for child in children.pop(heads.pop(), ()) if child.pid not in found]
        found.update({child.pid: child for child in new})
        heads += [child.pid for child in new]
    found.pop(os.getpid(), None)
    return [process for process in found.values() if _alive(process)]


def end(
    find: Callable[[], list[psutil.Process]],
    *,
    grace_s: float,
    at_once: Callable[[], bool] = lambda: False,
    between: Callable[[], object] = lambda: None,
) -> bool:
    """End all that `find` finds: SIGTERM, and after `grace_s`, or as soon as `at_once` says so, SIGKILL.

    `between` runs while it waits.  Tells whether none is left; gives up five seconds after the first SIGKILL.
    """
    asked: set[int] = set()
    kill_from = time.monotonic() + grace_s
    while processes := find():
        now = time.monotonic()
        killing = now >= kill_from or at_once()
        if killing:
            kill_from = min(kill_from, now)
        if now > kill_from + _KILL_WAIT_S:
            return False
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if killing:
                    process.kill()
                elif process.pid not in asked:
                    process.terminate()
        asked.update(process.pid for process in processes)
        between()
        time.sleep(_POLL_S)
    return True


def reap(known: Iterable[subprocess.Popen[bytes]]) -> bool:
    """Collect children that ended: those in `known` through their `Popen`, adopted orphans by themselves.

    Tells whether any child is left, running or about to be adopted as dead.
    """
    by_pid = {child.pid: child for child in known}
    try:
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            child = by_pid.get(ended.si_pid)
            if child is None:
                os.waitpid(ended.si_pid, 0)
            else:
                child.poll()
    except ChildProcessError:
        return False
    return True


def reap_all(known: Sequence[subprocess.Popen[bytes]], limit_s: float) -> None:
    """Collect every child, those included that we adopt when their parent has died; all have been ended."""
    deadline = time.monotonic() + limit_s
    while reap(known) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def write_sessions(path: Path, sessions: Iterable[Session]) -> None:
    """Write down which sessions are ours, atomically."""
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps([asdict(session) for session in sessions]))
    scratch.replace(path)


def read_sessions(path: Path) -> list[Session]:
    """What `write_sessions` wrote last; nothing where it never did or the file is damaged."""
    try:
        return [Session(**each) for each in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
