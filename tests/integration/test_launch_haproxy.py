"""HAProxy's wrapper: it closes what Serve's configuration leaves open, and refuses what it does not know."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from actors.placement import FEW_PROCESSORS
from serve_app.launch import haproxy
from serve_app.launch.ports import free_port
from tests.patience import PATIENCE_S

CONFIGURATION = """\
global
    log 127.0.0.1:514 local0 info
    nbthread 2
defaults
    log global
    errorfile 503 /elsewhere/500.http
frontend prometheus
    bind :9101
    http-request use-service prometheus-exporter if { path /metrics }
    no log
frontend http_frontend
    bind 127.0.0.1:8088
    default_backend default_backend
backend default_backend
    http-request return status 404
listen stats
  bind *:8404
  stats enable
"""

SERVING = """\
defaults
    mode http
    balance leastconn
    option redispatch 1
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    option abortonclose
    option splice-request
    option splice-response
    errorfile 503 /elsewhere/500.http
frontend http_frontend
    bind 127.0.0.1:{port}
    use_backend app if {{ path_beg /app }}
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \\'%[path]\\' not found."
backend app
{servers}
"""
"""As Serve generates it, in short."""


def start(
    tmp_path: Path, configuration: str, host: str = "::1"
) -> tuple[subprocess.CompletedProcess[str], str]:
    """Start the wrapper as Serve does; what it did, and what is left of the configuration."""
    wrapper = haproxy.environment("/bin/echo", tmp_path, host, 8088, fallback_port=1, stall_s=30)[
        "RAY_SERVE_HAPROXY_BINARY_PATH"
    ]
    path = tmp_path / "haproxy.cfg"
    path.write_text(configuration)
    done = subprocess.run(
        [wrapper, "-db", "-f", str(path), "-sf", "1"], capture_output=True, text=True, check=False
    )
    return done, path.read_text()


def test_only_the_api_listens_and_only_on_the_host_that_was_asked_for(tmp_path: Path) -> None:
    done, left = start(tmp_path, CONFIGURATION)
    assert (done.returncode, done.stdout.split()[0]) == (0, "-db")
    assert [line.strip() for line in left.splitlines() if "bind" in line] == ["bind ::1:8088"]
    assert "frontend http_frontend" in left
    assert "stats" not in left
    assert "prometheus" not in left


def test_no_access_log_leaves_the_machine(tmp_path: Path) -> None:
    _, left = start(tmp_path, CONFIGURATION)
    assert "514" not in left


def test_no_replica_is_a_503_in_json_and_never_looks_like_something_that_is_not_there(tmp_path: Path) -> None:
    """By the real HAProxy: without an application, and with one whose replicas are gone."""
    with running(tmp_path, free_port()) as port:
        for target in ("/v1/models", "/app/v1/models"):
            answer = asked(f"http://127.0.0.1:{port}{target}")
            assert answer.code == 503
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["retry-after"] == "1"
            assert len(answer.headers["x-request-id"]) == 36
            assert json.load(answer)["error"]["code"] == "runtime_unavailable"


@pytest.mark.parametrize("body_apart", [False, True])
def test_the_replica_hears_of_a_client_that_leaves_before_its_answer(
    tmp_path: Path, body_apart: bool
) -> None:
    """However the request came: in one packet, or its body after its head."""
    head = b"POST /app/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as replica:
        replica.settimeout(PATIENCE_S)
        with running(tmp_path, replica.getsockname()[1]) as port:
            asked(f"http://127.0.0.1:{port}/not-there")
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(head if body_apart else head + b"{}")
                heard, _ = replica.accept()
                heard.settimeout(PATIENCE_S)
                received = until_holds(heard, b"\r\n\r\n")
                if body_apart:
                    client.sendall(b"{}")
                until_holds(heard, b"{}", received)
            with heard, suppress(ConnectionResetError):
                assert heard.recv(1) == b"", "the end, unless the connection was reset"


def test_on_few_processors_the_first_replica_is_given_the_work_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the others what is beyond it, and everything once the first is gone."""
    monkeypatch.setattr(haproxy, "FIRST_MAX", 3)
    monkeypatch.setattr(os, "cpu_count", lambda: FEW_PROCESSORS)
    with (
        Replica() as first,
        Replica() as second,
        running(tmp_path, first.port, second.port) as port,
        ExitStack() as clients,
    ):
        asked(f"http://127.0.0.1:{port}/not-there")

        def ask() -> Replica:
            client = clients.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(b"GET /app/x HTTP/1.1\r\nHost: a\r\n\r\n")
            return who_hears(first, second)

        assert [ask() for _ in range(4)] == [first, first, first, second]
        first.close()
        assert ask() is second


def test_on_many_processors_all_replicas_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: FEW_PROCESSORS + 1)
    servers = "    server a 127.0.0.1:1\n    server b 127.0.0.1:2"
    _, left = start(tmp_path, SERVING.format(port=8088, servers=servers))
    assert "use-server" not in left


class Replica:
    """Takes requests and never answers."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._asked: list[socket.socket] = []

    def __enter__(self) -> Replica:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for each in (self._listening, *self._asked):
            each.close()

    def fileno(self) -> int:
        """For `select`."""
        return self._listening.fileno()

    def take(self) -> bool:
        """Accept a connection; whether it brings a request, and not only a look at whether we are here."""
        connection, _ = self._listening.accept()
        connection.settimeout(PATIENCE_S)
        self._asked.append(connection)
        try:
            return connection.recv(4096).startswith(b"GET /app/x ")
        except ConnectionResetError:
            return False


def who_hears(*replicas: Replica) -> Replica:
    """The replica that the next request comes to."""
    while True:
        standing = [replica for replica in replicas if replica.fileno() >= 0]
        ready, _, _ = select.select(standing, [], [], PATIENCE_S)
        assert ready, "no replica was asked"
        for replica in ready:
            if replica.take():
                return replica


def until_holds(connection: socket.socket, text: bytes, received: bytes = b"") -> bytes:
    """What arrived, once `text` did."""
    while text not in received:
        piece = connection.recv(4096)
        assert piece, "the connection ended"
        received += piece
    return received


@contextmanager
def running(tmp_path: Path, *replicas: int) -> Iterator[int]:
    """The real HAProxy before replicas on these ports, started by the wrapper; where it listens."""
    binary = haproxy.find()
    assert binary is not None
    port = free_port()
    made = haproxy.environment(binary, tmp_path, "127.0.0.1", port, fallback_port=1, stall_s=30)
    path = tmp_path / "haproxy.cfg"
    servers = [f"    server replica-{each} 127.0.0.1:{each} check inter 50ms" for each in replicas]
    path.write_text(SERVING.format(port=port, servers="\n".join(servers)))
    with subprocess.Popen([made["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(path)]) as process:
        try:
            yield port
        finally:
            process.kill()


def asked(url: str) -> urllib.error.HTTPError:
    """The refusal, once somebody listens."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=PATIENCE_S)
        except urllib.error.HTTPError as refusal:
            return refusal
        except urllib.error.URLError:
            assert time.monotonic() < deadline, "HAProxy does not listen"
            time.sleep(0.05)
        else:
            raise AssertionError("somebody answered")


def test_a_listener_it_does_not_know_is_refused(tmp_path: Path) -> None:
    done, _ = start(tmp_path, CONFIGURATION.replace("listen stats", "listen news"))
    assert done.returncode == 1
    assert "*:8404" in done.stderr


def test_a_dead_haproxy_is_missed_within_seconds(tmp_path: Path) -> None:
    """Serve starts another after three looks that found none."""
    environment = haproxy.environment("/bin/echo", tmp_path, "::1", 8088, fallback_port=1, stall_s=30)
    assert float(environment["RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S"]) * 3 <= 10
