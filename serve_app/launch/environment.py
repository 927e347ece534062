"""The environment that Ray and Serve read when they are imported: set before any of their processes start."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from serve_app.launch import haproxy
from serve_app.launch.ports import free_port
from serve_app.settings import Settings

_OWN_RAY: Final = {
    # Off means "no cluster of several machines": every port of this Ray then listens on 127.0.0.1.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # 0 takes a free port: the fixed ones would keep a second instance from starting beside this one.
    "DASHBOARD_METRIC_PORT": "0",
}
_SERVE: Final = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # Serve kills an ingress that is not up within 5 s, which on a busy machine ends the start.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}


def driver(token_file: Path) -> dict[str, str]:
    """What a Ray driver on this machine needs in its environment, before it imports Ray, to join ours."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": _OWN_RAY["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"],
    }


def own_ray(token_file: Path, scratch: Path, settings: Settings) -> tuple[dict[str, str], str | None]:
    """The environment of a Ray of our own with Serve on it, and the HAProxy it uses, if there is one."""
    found = haproxy.find()
    variables = _OWN_RAY | _SERVE | driver(token_file)
    if found is not None:
        variables |= haproxy.environment(
            found,
            scratch,
            settings.host,
            settings.port,
            fallback_port=free_port(),
            stall_s=settings.client_stall_s,
        )
    return variables, found


def import_path(environ_path: str | None) -> str:
    """`PYTHONPATH` with our working directory in front, so that workers import what we can."""
    return ":".join(
        dict.fromkeys(part for part in (str(Path.cwd()), *(environ_path or "").split(":")) if part)
    )
