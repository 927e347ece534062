"""On a Ray that somebody else started: `serve run`, `serve deploy`, and `rayspond serve --address`."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from serve_app.launch.environment import import_path
from serve_app.launch.ports import free_port
from tests.integration.nats_server import NatsServer
from tests.launching import Instance, until
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.ray
APPLICATION = "serve_app.app:application"


class Head:
    """A Ray head as `ray start` makes it, on ports of its own; `end` ends it and whatever ran on it."""

    def __init__(self, place: Path, nats: NatsServer) -> None:
        # Ray's sockets need a short path.
        self._scratch = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
        self._port, self._dashboard, self.http_port = free_port(), free_port(), free_port()
        token = place / "token"
        self._token = secrets.token_hex(32)
        token.write_text(self._token)
        self.data_dir = place / "data"
        self.data_dir.mkdir()
        self.environment = {
            **os.environ,
            "PYTHONPATH": import_path(os.environ.get("PYTHONPATH")),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAYSPOND_DATA_DIR": str(self.data_dir),
            "RAYSPOND_NATS_URL": nats.url,
        }
        self._log = place / "head.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [
                    *_program("ray"),
                    "start",
                    "--head",
                    "--block",
                    "--disable-usage-stats",
                    "--num-cpus=2",
                    "--object-store-memory=200000000",
                    f"--temp-dir={self._scratch}",
                    f"--port={self._port}",
                    f"--dashboard-port={self._dashboard}",
                    f"--dashboard-agent-listen-port={free_port()}",
                    f"--ray-client-server-port={free_port()}",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        self.address = until(lambda: _address(self._log), "Ray's start")
        self.dashboard = f"http://127.0.0.1:{self._dashboard}"

    def run(self, *command: str) -> str:
        """Run a command of Ray Serve against it; what it said."""
        done = subprocess.run(
            [*_program("serve"), *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={**self.environment, "RAY_ADDRESS": self.address, "RAY_DASHBOARD_ADDRESS": self.dashboard},
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def deployed(self, application: str) -> str:
        """How Serve's deployment of it stands: what `serve status` tells, without starting a program."""
        url = f"{self.dashboard}/api/serve/applications/"
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {self._token}"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return str(json.loads(answer.read())["applications"][application]["status"])

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON that the API answers, or None where it does not."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}", data, {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return json.loads(answer.read())
        except OSError:
            return None

    def processes(self, *names: str) -> list[psutil.Process]:
        """Its processes, or those of them whose name begins so."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = os.getsid(process.pid) == self._process.pid
                title = " ".join(process.cmdline()[:1])
            except (psutil.Error, OSError):
                continue
            if ours and (not names or title.startswith(names)):
                found.append(process)
        return found

    def end(self) -> None:
        """`kill -9`: some of its processes outlive it otherwise."""
        own = psutil.Process(self._process.pid)
        for process in {own, *own.children(recursive=True), *self.processes()}:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(10)
        shutil.rmtree(self._scratch, ignore_errors=True)


def _program(name: str) -> tuple[str, ...]:
    return (sys.executable, str(Path(sys.executable).with_name(name)))


def _address(log: Path) -> str | None:
    found = re.search(r"--address='([\d.]+:\d+)'", log.read_text())
    return found[1] if found else None


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    place = tmp_path_factory.mktemp("cluster")
    with NatsServer(place) as nats:
        started = Head(place, nats)
        try:
            yield started
        finally:
            started.end()


def _answers(head: Head, text: str) -> str:
    """Ask it something once it is ready; the response's id."""
    until(lambda: (head.ask("/readyz") or {}).get("status") == "ready", "readiness")
    answer = head.ask("/v1/responses", {"model": "simulated", "input": text})
    assert answer["status"] == "completed"
    return str(answer["id"])


def test_serve_run_and_serve_deploy_from_the_import_path(head: Head) -> None:
    """Settings come from the environment and from the command; what was stored is there after either."""
    head.run("start", "--http-port", str(head.http_port))
    head.run("run", "--non-blocking", "--name", "rayspond", APPLICATION, "hosts=1", "replicas=1")
    first = _answers(head, "one")
    assert head.ask("/readyz")["warnings"] == []
    assert len(head.ask("/hosts")["data"]) == 1, "hosts=1 was heard"
    head.run("deploy", "--name", "rayspond", APPLICATION, "replicas=1")
    until(lambda: head.deployed("rayspond") == "RUNNING", "the deployment")
    second = _answers(head, "two")
    listed = head.ask("/v1/responses")["data"]
    assert [one["id"] for one in listed] == [second, first]


def _refused(head: Head, data_dir: Path, code: int, told: str) -> None:
    late = _joining(head, data_dir)
    try:
        assert late.process.wait(PATIENCE_S) == code, late.output
        assert told in late.output
    finally:
        late.kill()


def test_rayspond_serve_refuses_a_serve_that_listens_elsewhere(head: Head, tmp_path: Path) -> None:
    """At once and in one line; what runs there goes on."""
    _refused(head, tmp_path / "late", 2, f"already runs Serve, on port {head.http_port}")
    _answers(head, "still there")


def test_rayspond_serve_joins_actors_of_its_own_log_and_ends_them(head: Head, tmp_path: Path) -> None:
    """Those of another log it leaves alone."""
    head.run("shutdown", "--yes")
    hosts = {process.pid for process in head.processes("ray::HostProcess")}
    _refused(head, tmp_path / "other", 1, "runs a Rayspond with another log")
    assert hosts == {process.pid for process in head.processes("ray::HostProcess")} != set()
    instance = _joining(head, head.data_dir)
    try:
        instance.wait_ready()
        head.http_port = int(instance.url.rpartition(":")[2])
        _answers(head, "four")
        assert len(head.ask("/v1/responses")["data"]) == 4
        assert "of the Ray cluster" in instance.runtime["ingress"]
        instance.stop()
    finally:
        instance.kill()
    assert not head.processes("ray::HostProcess", "ray::SupervisorProcess")


def _joining(head: Head, data_dir: Path) -> Instance:
    """`rayspond serve` on that Ray, told by the variables of its environment but for the log's place."""
    given = {name: text for name, text in head.environment.items() if name.startswith("RAY")}
    del given["RAYSPOND_DATA_DIR"]
    return Instance(data_dir, "--address", head.address, app=None, **given)
