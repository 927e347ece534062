"""The supervisor: the small process behind `rayspond serve` that starts all others and ends them.

It never imports Ray, so that it hears signals at once whatever Ray is doing; the slow part runs in `core`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Any, Final

import psutil

from serve_app.launch import environment, processes
from serve_app.launch.checks import check
from serve_app.launch.data_dir import DataDir
from serve_app.launch.errors import CannotStart, StartFailed
from serve_app.launch.nats_server import NatsServer
from serve_app.launch.orders import Orders
from serve_app.launch.output import Output
from serve_app.launch.ports import free_port
from serve_app.settings import PREFIX, Settings

_VERSION: Final = "0.1.0"
_NATS_LIMIT_S: Final = 20.0
_START_LIMIT_S: Final = 300.0
_LEFTOVER_GRACE_S: Final = 1.0
_CORE_STOP_S: Final = 5.0
_TERM_GRACE_S: Final = 2.0
_REAP_LIMIT_S: Final = 1.0
_TICK_S: Final = 1.0
_KEYS_OF_OURS: Final = ("admin_key", "secret_key")


def serve(settings: Settings) -> int:
    """Start everything, keep it until SIGINT or SIGTERM, end it.  The exit code.

    Raises `CannotStart` when nothing could be started; nothing is left running then.
    """
    began = time.monotonic()
    supervisor = Supervisor(settings, Output(), began)
    try:
        supervisor.start()
        supervisor.watch()
    finally:
        supervisor.stop()
    return 0


def reached_at(host: str) -> str:
    """The host of a URL on this machine for what listens on `host`."""
    every = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (compared with, not listened on)
    host = every.get(host, host)
    return f"[{host}]" if ":" in host else host


class Signals:
    """The signals that end us, counted: the second one means at once.  SIGHUP asks for the models again."""

    def __init__(self) -> None:
        self.count = 0
        self.reload = False
        self._terminal = sys.stdout.isatty()
        self.wakeup, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._hear)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only so that it wakes us

    def asked(self) -> bool:
        """Whether to stop."""
        return self.count > 0

    def urgent(self) -> bool:
        """Whether to stop at once."""
        return self.count > 1

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        # A terminal that is closed sends SIGHUP, too; nobody could stop us with Ctrl-C any more.
        if number == signal.SIGHUP and sys.stdout.isatty() == self._terminal:
            self.reload = True
        else:
            self.count += 1


class Supervisor:
    """One run of `rayspond serve`."""

    def __init__(self, settings: Settings, output: Output, began: float) -> None:
        self._signals = Signals()
        self._settings = settings
        self._output = output
        self._began = began
        self._data: DataDir | None = None
        self._nats: NatsServer | None = None
        self._core: subprocess.Popen[bytes] | None = None
        self._messages = -1
        self._unread = b""
        self._sessions: list[processes.Session] = []
        self._ready = False
        self._ingress = "that of the Ray cluster"
        self._runtime: dict[str, Any] = {}

    def start(self) -> None:
        """Check, clean up after an earlier run, start NATS and the core.  Raises `CannotStart`."""
        data = self._data = DataDir(self._settings.data_dir)
        processes.become_subreaper()
        processes.allow_many_files()
        self._end_leftovers(data)
        check(self._settings)
        host = self._settings.host
        port = self._settings.port or free_port(host)
        self._settings = dataclasses.replace(self._settings, port=port)
        self._output.line(f"rayspond {_VERSION} on {data.path}")
        if self._settings.nats_url is None:
            self._nats = NatsServer(data)
            self._add(data, self._nats.start())
        self._start_core(data)
        if self._nats is not None:
            began = time.monotonic()
            self._nats.wait(_NATS_LIMIT_S, self._signals.asked)
            self._output.step("NATS", f"nats://127.0.0.1:{self._nats.port}", time.monotonic() - began)
        self._give_orders(data)

    def watch(self) -> None:
        """Tell of progress, keep NATS alive, until asked to stop.  Raises `StartFailed` if the core ends."""
        while not self._signals.asked():
            readable = [self._signals.wakeup, *([self._messages] if self._messages >= 0 else [])]
            readable, _, _ = select.select(readable, [], [], _TICK_S)
            with contextlib.suppress(BlockingIOError):
                os.read(self._signals.wakeup, 1024)
            if self._messages in readable:
                self._read_messages()
            processes.reap(self._children())
            if self._core is not None and self._core.returncode is not None and not self._signals.asked():
                raise StartFailed(f"the core ended ({self._core.returncode}); see {self._core_log()}")
            if not self._ready and time.monotonic() - self._began > _START_LIMIT_S:
                raise StartFailed(f"not ready after {_START_LIMIT_S:.0f} s; see {self._core_log()}")
            self._watch_nats()
            if self._signals.reload and self._ready:
                self._signals.reload = False
                self._tell_core("reload")

    def stop(self) -> None:
        """End every process; a second signal makes it immediate.  Takes at most about 13 s."""
        data = self._data
        if data is None:
            return
        data.remove_runtime()
        if self._ready:
            self._output.line("stopping ...")
        if self._core is not None and (self._ready or self._settings.address != "local"):
            self._stop_core(self._core)
        began = time.monotonic()
        clean = processes.end(
            self._family,
            grace_s=_TERM_GRACE_S if self._ready else 0.5,
            at_once=self._signals.urgent,
            between=lambda: processes.reap(self._children()),
        )
        processes.reap_all(self._children(), _REAP_LIMIT_S)
        if clean:
            data.sessions.unlink(missing_ok=True)
            data.drop_scratch()
        if self._ready:
            self._output.line(f"stopped in {time.monotonic() - began:.1f} s")
        data.close()
        self._data = None

    def _end_leftovers(self, data: DataDir) -> None:
        left = processes.read_sessions(data.sessions)
        count = len(processes.family(left))
        if count:
            self._output.line(f"  ending {count} processes that an earlier run left")
            if not processes.end(lambda: processes.family(left), grace_s=_LEFTOVER_GRACE_S):
                raise CannotStart(f"processes of an earlier run on {data.path} do not end: end them by hand")
        data.sessions.unlink(missing_ok=True)
        data.remove_runtime()
        data.drop_scratch()

    def _start_core(self, data: DataDir) -> None:
        settings = self._settings
        scratch = data.make_scratch()
        variables = dict(os.environ)
        variables["PYTHONPATH"] = environment.import_path(variables.get("PYTHONPATH"))
        for name in _KEYS_OF_OURS:
            # Handed over with the orders: whatever runs in the actors has no business with them.
            variables.pop(f"{PREFIX}{name.upper()}", None)
        # What was given as an option reaches every process the same way as what was in the environment.
        for name in ("upstream_url", "upstream_key"):
            if (value := getattr(settings, name)) is not None:
                variables[f"{PREFIX}{name.upper()}"] = value
        if settings.address == "local":
            own, found = environment.own_ray(data.secret_file("ray-token"), scratch, settings)
            variables |= own
            self._ingress = "haproxy" if found else "Serve's own proxy, because HAProxy is missing"
            if found is None:
                self._output.line("  HAProxy is missing: Serve's own proxy is used, about ten times slower")
        self._messages, pipe = os.pipe2(os.O_CLOEXEC)
        self._core, session = processes.start(
            (sys.executable, "-m", "serve_app.launch.core", str(pipe)),
            mark=data.mark,
            environment=variables,
            log=data.log("core"),
            pipe=pipe,
        )
        os.close(pipe)
        self._add(data, session)

    def _give_orders(self, data: DataDir) -> None:
        assert self._core is not None
        assert self._core.stdin is not None
        assert data.scratch is not None
        settings = self._settings
        runtime_url = self._nats.runtime_url if self._nats else settings.nats_url
        settings = dataclasses.replace(
            settings,
            nats_url=runtime_url,
            log_url=settings.log_url or f"sqlite:///{data.path}",
        )
        http_url = f"http://{reached_at(settings.host)}:{settings.port}"
        self._runtime = {
            "pid": os.getpid(),
            "http_url": http_url,
            "nats_url": self._nats.subscriber_url if self._nats else settings.nats_url,
            "nats_runtime_url": runtime_url,
            "log_url": settings.log_url,
            "ray_env": environment.driver(data.secret_file("ray-token"))
            if settings.address == "local"
            else {},
            "ingress": self._ingress,
            "data_dir": str(data.path),
            "version": _VERSION,
        }
        with contextlib.suppress(BrokenPipeError):
            self._core.stdin.write(Orders(settings, data.scratch, http_url).line())
            self._core.stdin.flush()
        self._output.began("starting Ray")

    def _read_messages(self) -> None:
        chunk = os.read(self._messages, 65536)
        if not chunk:
            os.close(self._messages)
            self._messages = -1
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if "failed" in message:
            if message["usage"]:
                raise CannotStart(message["failed"])
            raise StartFailed(f"{message['failed']}; see {self._core_log()}")
        if "ray_address" in message:
            self._runtime["ray_address"] = message["ray_address"]
        if "told" in message:
            self._output.line(message["told"])
        if "capture_away" in message and self._nats is not None and self._nats.renew():
            seconds = message["capture_away"]
            self._output.line(f"JetStream has taken nothing for {seconds:.0f} s; nats-server is started anew")
        if "step" in message:
            self._output.step(message["step"], message["text"], message["seconds"])
            self._output.began("starting what comes next")
        if "ready" in message and self._data is not None:
            self._data.write_runtime(self._runtime)
            self._ready = True
            url = self._runtime["http_url"]
            self._output.line(f"\n  {'API':<14}{url}/v1, described at {url}/docs")
            self._output.line(f"  {'Logs':<14}{self._data.path / 'logs'}")
            self._output.snippets(url, keyed=self._settings.admin_key is not None)
            self._output.line(
                f"ready: {url}/v1 (rayspond {_VERSION}, started in {time.monotonic() - self._began:.1f} s; "
                "Ctrl-C stops it)"
            )

    def _watch_nats(self) -> None:
        if self._nats is None or self._data is None:
            return
        session = self._nats.watch()
        if session is not None:
            self._add(self._data, session)
            self._output.line("nats-server ended; started again")

    def _stop_core(self, core: subprocess.Popen[bytes]) -> None:
        """Let the core and the actors put down what they hold."""
        self._tell_core("stop")
        deadline = time.monotonic() + _CORE_STOP_S
        while core.poll() is None and time.monotonic() < deadline and not self._signals.urgent():
            time.sleep(0.02)

    def _tell_core(self, word: str) -> None:
        assert self._core is not None
        assert self._core.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._core.stdin.write(f"{word}\n".encode())
            self._core.stdin.flush()

    def _add(self, data: DataDir, session: processes.Session) -> None:
        self._sessions = [each for each in self._sessions if each.members()] + [session]
        processes.write_sessions(data.sessions, self._sessions)

    def _family(self) -> list[psutil.Process]:
        return processes.family(self._sessions, root=os.getpid())

    def _children(self) -> list[subprocess.Popen[bytes]]:
        nats = self._nats.child if self._nats else None
        return [child for child in (self._core, nats) if child is not None]

    def _core_log(self) -> str:
        return str(self._settings.data_dir / "logs" / "core.log")
