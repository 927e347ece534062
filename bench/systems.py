"""What is measured: Rayspond in its three isolations, the bare echo, and the core in one process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import psutil

from bench.processes import child
from serve_app.launch.ports import free_port
from tests.fakes.script import words

BIN = Path(sys.executable).parent
SHARED: Final = "rayspond (shared)"
ONE_PROCESS: Final = "the same core in one process"
ECHO: Final = "bare Ray Serve echo"


@dataclass(frozen=True, slots=True)
class System:
    """One system that runs."""

    name: str
    url: str
    process: psutil.Process
    model: str
    """What its model name begins with; the script follows behind `?`."""
    peer: bool = False
    """Whether it is somebody else's: who fails is left out then, else the bench ends."""

    def scripted(self, deltas: int, interval_ms: float = 0) -> str:
        """The model name that asks for so many deltas at that pace."""
        pace = f"&interval_ms={interval_ms:g}" if interval_ms else ""
        return f"{self.model}?deltas={deltas}{pace}"

    @property
    def asks(self) -> bool:
        """Whether it asks the fake upstream."""
        return self.model != "echo"

    def said(self, deltas: int) -> str | None:
        """The text of such an answer, where the upstream says it; the echo's words are its own."""
        return "".join(words(deltas)) if self.asks else None


@contextlib.contextmanager
def upstream(scratch: Path) -> Iterator[str]:
    """The fake upstream; its base URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    command = [sys.executable, "-m", "tests.fakes.upstream", "--port", str(port)]
    with child(command, f"{url}/models", scratch / "upstream.log"):
        yield url


@contextlib.contextmanager
def rayspond(
    isolation: str, upstream_url: str, scratch: Path, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[System]:
    """A whole `rayspond serve` on a fresh data directory; `settings` are further environment variables."""
    port = free_port()
    command = [
        str(BIN / "rayspond"),
        "serve",
        "--port",
        str(port),
        "--data-dir",
        str(scratch / f"data-{isolation}"),
        "--isolation",
        isolation,
    ]
    base = f"http://127.0.0.1:{port}"
    with child(
        command,
        f"{base}/readyz",
        scratch / f"rayspond-{isolation}.log",
        {"RAYSPOND_UPSTREAM_URL": upstream_url, **settings},
    ) as process:
        yield System(f"rayspond ({isolation})", f"{base}/v1/responses", process, "fake")


@contextlib.contextmanager
def echo(scratch: Path, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[System]:
    """The bare Ray Serve application of `bench.echo`; `settings` as for `rayspond`."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "bench.echo", "--port", str(port)]
    with child(command, f"{base}/readyz", scratch / "echo.log", settings) as process:
        yield System(ECHO, f"{base}/v1/responses", process, "echo")


@contextlib.contextmanager
def one_process(
    upstream_url: str, scratch: Path, settings: Mapping[str, str] = MappingProxyType({}), slots: int = 256
) -> Iterator[System]:
    """The core of `bench.one_process`, without Ray and NATS; `settings` as for `rayspond`."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "bench.one_process", "--port", str(port)]
    command += ["--data-dir", str(scratch / "data-one-process"), "--upstream-url", upstream_url]
    command += ["--slots", str(slots)]
    with child(command, f"{base}/readyz", scratch / "one-process.log", settings) as process:
        yield System(ONE_PROCESS, f"{base}/v1/responses", process, "fake")
