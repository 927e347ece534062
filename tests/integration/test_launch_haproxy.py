"""HAProxy's wrapper: it closes what Serve's configuration leaves open, and refuses what it does not know."""

from __future__ import annotations

import subprocess
from pathlib import Path

from serve_app.launch import haproxy

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


def test_no_access_log_leaves_the_machine_and_no_replica_is_a_503_in_json(tmp_path: Path) -> None:
    _, left = start(tmp_path, CONFIGURATION)
    assert "514" not in left
    page = next(line.split()[-1] for line in left.splitlines() if "errorfile 503" in line)
    head, body = Path(page).read_bytes().split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert f"Content-Length: {len(body)}".encode() in head


def test_a_listener_it_does_not_know_is_refused(tmp_path: Path) -> None:
    done, _ = start(tmp_path, CONFIGURATION.replace("listen stats", "listen news"))
    assert done.returncode == 1
    assert "*:8404" in done.stderr


def test_a_dead_haproxy_is_missed_within_seconds(tmp_path: Path) -> None:
    """Serve starts another after three looks that found none."""
    environment = haproxy.environment("/bin/echo", tmp_path, "::1", 8088, fallback_port=1, stall_s=30)
    assert float(environment["RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S"]) * 3 <= 10
