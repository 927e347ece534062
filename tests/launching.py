"""A real `rayspond serve` for tests: started, waited for, stopped, and looked after so that nothing stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Any

import psutil

from serve_app.launch import processes
from tests.patience import PATIENCE_S

ECHO = "tests.echo_application:build"
START_LIMIT_S = 310.0
STOP_LIMIT_S = 15.0


def until(condition: Callable[[], Any], what: str, limit_s: float = PATIENCE_S) -> Any:
    """Wait for `condition` to become true; its value."""
    deadline = time.monotonic() + limit_s
    while True:
        began = time.monotonic()
        if value := condition():
            return value
        looked = time.monotonic()
        if looked > deadline:
            raise AssertionError(f"{what} did not happen within {limit_s:.0f} s")
        # What takes long to look at shall not keep a processor busy that others wait for.
        time.sleep(max(0.02, min(looked - began, 1.0)))


def rayspond(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "serve_app.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, **(environment or {})},
        check=False,
    )


RUNNING: set[Instance] = set()
"""Those of this process that were not seen to end."""


class Instance:
    """One `rayspond serve` on a data directory."""

    def __init__(self, data_dir: Path, *options: str, app: str | None = ECHO, **environment: str) -> None:
        self.data_dir = data_dir
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        self._command = [sys.executable, "-m", "serve_app.cli", "serve", "--data-dir", str(data_dir)]
        self._command += [*(("--app", app) if app else ()), *options]
        self._environment = {"RAYSPOND_PORT": "0", **os.environ, **environment}
        self._start()

    def _start(self) -> None:
        self._output = self.data_dir.parent / f"{self.data_dir.name}.{time.monotonic_ns()}.out"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                self._command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        RUNNING.add(self)
        self._sessions: list[processes.Session] = []
        self._seen: dict[int, psutil.Process] = {}
        self._sockets: set[str] = set()
        """Its listening sockets: their ports may be another server's once it has ended."""
        self.listening: set[tuple[str, int]] = set()
        """Addresses and ports that its processes listened on when they were noted."""

    def start_again(self) -> Instance:
        """Start it once more, now that it has ended, on its data directory and port; wait for `ready`."""
        assert self.process.poll() is not None
        self._start()
        return self.wait_ready()

    @property
    def output(self) -> str:
        """All it has printed so far."""
        return self._output.read_text()

    @property
    def runtime(self) -> dict[str, Any]:
        """Its runtime.json."""
        content: dict[str, Any] = json.loads((self.data_dir / "runtime.json").read_text())
        return content

    @property
    def url(self) -> str:
        """Where its API is, without /v1."""
        return str(self.runtime["http_url"])

    def wait_for(self, text: str, limit_s: float = START_LIMIT_S) -> str:
        """The first line of output that contains `text`, once it is there."""

        def line() -> str | None:
            found = next((line for line in self.output.splitlines() if text in line), None)
            if found is None and self.process.poll() is not None:
                raise AssertionError(
                    f"it ended ({self.process.returncode}) before {text!r}:\n{self._story()}"
                )
            return found

        found: str = until(line, f"{text!r} in the output:\n{self._story()}\n", limit_s)
        return found

    def wait_ready(self) -> Instance:
        """Wait for its `ready` line."""
        self.wait_for("ready: ")
        self._environment["RAYSPOND_PORT"] = self.url.rpartition(":")[2]
        return self

    def note_processes(self) -> list[psutil.Process]:
        """Remember its processes of this moment, for `assert_gone`."""
        self._sessions = processes.read_sessions(self.data_dir / "sessions.json")
        found = processes.family(self._sessions, root=self.process.pid)
        self._seen.update({process.pid: process for process in found})
        return found

    def note_everything(self) -> list[psutil.Process]:
        """The same, and where they listen."""
        found = self.note_processes()
        pids = {*self._seen, self.process.pid}
        for pid, address, held in _listening():
            if pid in pids:
                self.listening.add(address)
                self._sockets.add(held)
        return found

    def stop(self, number: int = signal.SIGTERM) -> float:
        """End it by a signal and see that everything is gone in time; seconds it took."""
        self.note_everything()
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(STOP_LIMIT_S)
        self.assert_gone()
        took = time.monotonic() - began
        assert took < STOP_LIMIT_S
        return took

    def assert_gone(self) -> None:
        """Nothing that was noted lives or listens, and nothing lies about."""
        left = [process for process in self._seen.values() if _lives(process)]
        left += [process for process in processes.family(self._sessions) if _lives(process)]
        assert not left, f"left running: {left}\n{self._story()}"
        listening = [(pid, address) for pid, address, held in _listening() if held in self._sockets]
        assert not listening, f"left listening: {listening}"
        assert not (self.data_dir / "runtime.json").exists()
        assert not (self.data_dir / "sessions.json").exists()
        RUNNING.discard(self)

    def kill(self) -> None:
        """For fixtures that failed: end it whatever state it is in."""
        with suppress(psutil.Error, OSError):
            self.note_everything()
        RUNNING.discard(self)
        self.process.kill()
        for process in self._seen.values():
            with suppress(psutil.Error):
                process.kill()
        # What they started while they were noted is in their sessions, too.
        processes.end(lambda: processes.family(self._sessions), grace_s=0)
        self.process.wait(10)
        with suppress(OSError):
            shutil.rmtree((self.data_dir / "scratch.path").read_text(), ignore_errors=True)

    def get(self, path: str) -> tuple[int, bytes]:
        """GET something of its API."""
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE_S) as response:
            return response.status, response.read()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST JSON to its API; the JSON it answers."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            content: dict[str, Any] = json.loads(response.read())
            return content

    def open_stream(self, path: str) -> AbstractContextManager[Any]:
        """GET something endless; it has begun to arrive."""
        response = urllib.request.urlopen(self.url + path, timeout=PATIENCE_S)
        response.read(1)
        return closing(response)

    def complaints(self) -> str:
        """What its processes warned of, and the errors they met: the last of each."""
        said = [self._story()[-2000:]]
        logs = self.data_dir / "logs/ray"
        for log in (*logs.glob("worker-*.err"), *logs.glob("serve/replica*.log")):
            lines: list[str] = []
            with suppress(OSError):  # It may go with its process, and nothing here may hide the failure.
                lines = log.read_text(errors="replace").splitlines()
            worth = [line for line in lines if not line.startswith((":", "INFO")) and " INFO " not in line]
            if worth:
                said.append("\n".join((f"--- {log.name}", *worth[-20:])))
        return "\n".join(said)[-12_000:]

    def _story(self) -> str:
        log = self.data_dir / "logs" / "core.log"
        return self.output + (f"--- core.log\n{log.read_text()[-3000:]}" if log.exists() else "")


def _listening() -> Iterator[tuple[int, tuple[str, int], str]]:
    """Every socket that listens: a process that has it, its address, and what the kernel calls it."""
    for each in psutil.net_connections("inet"):
        if each.status == psutil.CONN_LISTEN and each.pid is not None:
            local: Any = each.laddr
            try:
                held = os.readlink(f"/proc/{each.pid}/fd/{each.fd}")
            except OSError:
                continue  # It was closed meanwhile.
            yield each.pid, (local.ip, local.port), held


def _lives(process: psutil.Process) -> bool:
    """Whether it runs: one that ended may wait for a busy init to take note of it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
