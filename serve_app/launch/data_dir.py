"""The data directory: one instance at a time, its secrets, and what tells others where things are."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from serve_app.launch.errors import CannotStart
from serve_app.launch.ports import free_port, hold

RUNTIME: Final = "runtime.json"
SECRET_KEY: Final = "secret-key"  # noqa: S105  (a file's name)
"""What keys the hashes of API keys, where no setting names it."""
_LOCK: Final = "instance.lock"
_LOGS_KEPT_BYTES: Final = 16 * 1024 * 1024


class DataDir:
    """A data directory that this process holds; `close` lets go of it.

    Layout: `instance.lock`, `runtime.json` while it runs, `secrets/`, `logs/`, `nats/`, and what the log's
    store keeps there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _held(path)
        self.sessions = path / "sessions.json"
        self.scratch: Path | None = None

    @property
    def mark(self) -> str:
        """What tells this directory's processes from all others: a copy of it gets another one."""
        found = self.path.stat()
        return f"{found.st_dev}:{found.st_ino}:{self.secret('instance')}"

    def secret_file(self, name: str) -> Path:
        """A file with 64 random hex digits, mode 0600, made once and kept."""
        return _kept_secret_file(self.path, name)

    def secret(self, name: str) -> str:
        """What `secret_file` holds."""
        return self.secret_file(name).read_text().strip()

    def log(self, name: str) -> Path:
        """The path of a log file; one that has grown long is set aside first."""
        path = self.path / "logs" / f"{name}.log"
        if path.exists() and path.stat().st_size > _LOGS_KEPT_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path

    def kept_port(self, name: str) -> int:
        """A free loopback port, held: the same as last time where it is still free."""
        path = self.path / f"{name}.port"
        with contextlib.suppress(OSError, ValueError):
            kept = int(path.read_text())
            if hold("127.0.0.1", kept) is None:
                return kept
        port = free_port()
        path.write_text(str(port))
        return port

    def make_scratch(self) -> Path:
        """A directory with a short path, as Unix sockets need.  `drop_scratch` removes it."""
        self.scratch = Path(tempfile.mkdtemp(prefix="rayspond-", dir="/tmp"))
        (self.path / "scratch.path").write_text(str(self.scratch))
        return self.scratch

    def drop_scratch(self) -> None:
        """Remove the scratch directory, also a killed run's; keep Ray's logs from it in `logs/ray`."""
        note = self.path / "scratch.path"
        with contextlib.suppress(OSError):
            scratch = Path(note.read_text())
            if scratch.parent == Path("/tmp") and scratch.name.startswith("rayspond-"):  # noqa: S108  (ours)
                self._keep_logs(scratch)
                shutil.rmtree(scratch, ignore_errors=True)
            note.unlink()

    def write_runtime(self, content: Mapping[str, Any]) -> None:
        """Say where everything is, for other commands; mode 0600, because it holds credentials."""
        _write_private(self.path / RUNTIME, json.dumps(content, indent=2) + "\n")

    def remove_runtime(self) -> None:
        """Nothing runs any more."""
        (self.path / RUNTIME).unlink(missing_ok=True)

    def close(self) -> None:
        """Let the next instance in."""
        os.close(self._lock)

    def _keep_logs(self, scratch: Path) -> None:
        kept = self.path / "logs" / "ray"
        for session in scratch.glob("ray/session_*"):
            if session.is_symlink():
                continue
            shutil.rmtree(kept, ignore_errors=True)
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(session / "logs", kept, ignore=_too_long, symlinks=True)


def kept_secret(data_dir: Path, name: str) -> str:
    """64 random hex digits, kept in a file of the data directory with mode 0600; made where they are missing.

    Raises `CannotStart` where it cannot be written.
    """
    try:
        (data_dir / "secrets").mkdir(mode=0o700, parents=True, exist_ok=True)
        return _kept_secret_file(data_dir, name).read_text().strip()
    except OSError as reason:
        raise CannotStart(
            f"a secret cannot be kept in {data_dir} ({(reason.strerror or str(reason)).lower()}): "
            "make it writable for this user or set RAYSPOND_SECRET_KEY"
        ) from None


def secret_at(data_dir: Path, name: str) -> str | None:
    """A secret that was kept in the data directory, or None where it is not there or not ours to read."""
    try:
        return (data_dir / "secrets" / name).read_text().strip() or None
    except OSError:
        return None


def read_runtime(path: Path) -> dict[str, Any] | None:
    """What the running instance on the data directory `path` wrote, or nothing."""
    try:
        content = json.loads((path / RUNTIME).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _held(path: Path) -> int:
    """The lock's file descriptor; the kernel lets go of it when this process ends, however it ends."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("secrets", "logs", "nats"):
            (path / name).mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        descriptor = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as reason:
        raise CannotStart(
            f"the data directory {path} cannot be written ({(reason.strerror or str(reason)).lower()}): "
            "make it writable for this user or name another with --data-dir"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        running = read_runtime(path) or {}
        where = (
            f" at {running['http_url']} (pid {running['pid']})"
            if running.keys() >= {"http_url", "pid"}
            else ""
        )
        raise CannotStart(
            f"another rayspond already runs on the data directory {path}{where}: "
            "stop it or name another with --data-dir"
        ) from None
    return descriptor


def _kept_secret_file(data_dir: Path, name: str) -> Path:
    path = data_dir / "secrets" / name
    if not path.exists() or not path.read_text().strip():
        _write_private(path, secrets.token_hex(32))
    return path


def _write_private(path: Path, text: str) -> None:
    scratch = path.with_name(path.name + ".new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    scratch.replace(path)


def _too_long(directory: str, names: list[str]) -> set[str]:
    paths = {name: Path(directory, name) for name in names}
    return {
        name
        for name, path in paths.items()
        if path.is_symlink() or (path.is_file() and path.stat().st_size > _LOGS_KEPT_BYTES)
    }
