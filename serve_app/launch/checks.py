"""What is checked before anything starts."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from runtime import config
from serve_app.launch import environment
from serve_app.launch.errors import CannotStart
from serve_app.launch.ports import hold
from serve_app.settings import Settings

_MIGRATE_LIMIT_S: Final = 600.0


def check(settings: Settings) -> None:
    """Hold the port.  Raise `CannotStart` with a clear line when these settings cannot work here."""
    check_app(settings)
    check_models(settings)
    check_log(settings)
    if settings.port and (problem := hold(settings.host, settings.port)) is not None:
        raise CannotStart(
            f"port {settings.port} on {settings.host} cannot be listened on ({problem}): "
            "stop what uses it or choose another with --port"
        )


def check_app(settings: Settings) -> None:
    """Raise `CannotStart` when there is no such application, long before it is imported."""
    module, _, name = settings.app.partition(":")
    try:
        found = name and importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if not found:
        raise CannotStart(f"--app {settings.app} cannot be found: name it as module:function")


def check_log(settings: Settings) -> None:
    """Raise `CannotStart` when the log's database cannot be used; create or upgrade one that is a server's.

    In a process of its own: what starts everything else stays small.
    """
    if settings.log_url is None or not settings.log_url.startswith("postgresql:"):
        log_directory(settings)
        return
    done = subprocess.run(
        [sys.executable, "-m", "serve_app.cli", "migrate"],
        env=os.environ
        | {
            "RAYSPOND_LOG_URL": settings.log_url,
            "PYTHONPATH": environment.import_path(os.environ.get("PYTHONPATH")),
        },
        capture_output=True,
        text=True,
        timeout=_MIGRATE_LIMIT_S,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise CannotStart(f"--log-url: {said[-1].removeprefix('rayspond: ') if said else 'no answer'}")


def check_nodes(settings: Settings, nodes: int) -> None:
    """Raise `CannotStart` when a Ray of this many nodes cannot use the log."""
    if nodes > 1 and (settings.log_url is None or settings.log_url.startswith("sqlite:")):
        raise CannotStart(
            f"this Ray has {nodes} nodes and SQLite serves only one: name a Postgres database with --log-url"
        )


def check_serve(settings: Settings, port: int | None) -> None:
    """Raise `CannotStart` when this Ray already runs a Serve, at `port`, which does not move to another."""
    if port is not None and port != settings.port:
        raise CannotStart(
            f"this Ray already runs Serve, on port {port}, and it cannot listen on {settings.port} too: "
            "deploy there with `serve run serve_app.app:application`, or end it with `serve shutdown`"
        )


def log_directory(settings: Settings) -> Path:
    """Where an embedded log lies.  Raises `CannotStart` for a URL that names no directory."""
    if settings.log_url is None:
        return settings.data_dir
    directory = settings.log_url.removeprefix("sqlite:///")
    if directory == settings.log_url or not directory:
        raise CannotStart("--log-url must be sqlite:///DIRECTORY or a postgresql:// URL")
    return Path(directory)


def check_models(settings: Settings) -> None:
    """Raise `CannotStart` when the file of models, or the upstream that settings name, cannot be used."""
    given = {config.URL_ENV: settings.upstream_url, config.KEY_ENV: settings.upstream_key}
    environ = os.environ | {name: value for name, value in given.items() if value is not None}
    try:
        config.load(settings.config, environ)
    except config.ConfigError as error:
        raise CannotStart(" ".join(str(error).split())) from None
