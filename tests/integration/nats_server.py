"""A real nats-server of the test's own: on a free loopback port, with whatever configuration it is given."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eventstore import nats_config
from serve_app.launch.ports import free_port
from tests.patience import PATIENCE_S

RUNTIME_PASSWORD = "runtime-secret"
SUBSCRIBER_PASSWORD = "subscriber-secret"


def executable() -> str:
    """The nats-server that is installed beside this Python, or on the path."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "nats-server is not installed"
    return found


def _embedded(port: int, store_dir: str) -> str:
    return nats_config.render(port, store_dir, RUNTIME_PASSWORD, SUBSCRIBER_PASSWORD)


class NatsServer:
    """A child process; every start uses the same port, configuration and store."""

    def __init__(self, folder: Path, render: Callable[[int, str], str] | None = None) -> None:
        """`render(port, store_dir)` gives the configuration; the embedded server's own by default."""
        self.folder = folder
        self.store = folder / "store"
        self.port = free_port()
        self._config = folder / "nats.conf"
        self._render = render or _embedded
        self._process: subprocess.Popen[bytes] | None = None
        self.configure()

    def configure(self) -> None:
        """Write the configuration again, for the next start."""
        self._config.write_text(self._render(self.port, str(self.store)))

    @property
    def url(self) -> str:
        """For the runtime."""
        return nats_config.url(self.port, "runtime", RUNTIME_PASSWORD)

    @property
    def subscriber_url(self) -> str:
        """For a subscriber."""
        return nats_config.url(self.port, "subscriber", SUBSCRIBER_PASSWORD)

    def start(self) -> None:
        """Start, and return once it accepts clients."""
        assert self._process is None, "it runs already"
        with (self.folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen([executable(), "-c", str(self._config)], stdout=log, stderr=log)
        self._await_ready()

    def stop(self) -> None:
        """End it politely."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Make it stand still; connections stay open."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)  # Else it may answer once more.

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def forget(self) -> None:
        """Delete what JetStream stored; only while it does not run."""
        assert self._process is None
        shutil.rmtree(self.store, ignore_errors=True)

    def __enter__(self) -> NatsServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.resume()
            self.kill()

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _await_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self.folder / "nats.log").read_text()
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), timeout=1) as client,
            ):
                if client.recv(4) == b"INFO":
                    return
            time.sleep(0.02)
        raise AssertionError("nats-server did not become ready")
