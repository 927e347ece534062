"""How commands read a log: that of a running instance, or a copy of one; they never write to it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click
import orjson

from actors.config import ClusterConfig
from actors.stores import open_reader
from eventstore.errors import EventStoreError
from eventstore.events import Record
from eventstore.ports import LogReader
from serve_app import settings as table
from serve_app.launch.data_dir import read_runtime
from serve_app.launch.errors import CannotStart

T = TypeVar("T")

OPTIONS = ("data_dir", "log_url")


def options() -> list[click.Parameter]:
    """Where the log is, as every command that reads one asks for it."""
    return [
        click.Option([option.flag], help=f"{option.explanation}  [{option.variable}]")
        for option in table.options()
        if option.name in OPTIONS
    ]


def with_log(data_dir: str | None, log_url: str | None, work: Callable[[LogReader], Awaitable[T]]) -> T:
    """Do something with the log.  Raises `CannotStart` where there is none that can be read."""
    settings = table.read({"data_dir": data_dir, "log_url": log_url}, os.environ)
    running = read_runtime(settings.data_dir) or {}
    url = settings.log_url or str(running.get("log_url") or f"sqlite:///{settings.data_dir}")

    async def run() -> T:
        reader = open_reader(ClusterConfig(log_url=url, nats_url=""))
        try:
            return await work(reader)
        finally:
            await reader.aclose()

    try:
        return asyncio.run(run())
    except EventStoreError as reason:
        raise CannotStart(f"{reason}; name another log with --data-dir or --log-url") from None


async def check_known(reader: LogReader, stream: str) -> None:
    """Raise `CannotStart` for a stream that the log does not know."""
    if await reader.head(stream) is None:
        raise CannotStart(f"the log knows no {stream!r}")


def show(record: Record) -> None:
    """Print a line of JSON for each event; one that was erased has no data."""
    for index, kind in enumerate(record.types):
        line: dict[str, Any] = {
            "position": record.position,
            "stream": record.stream,
            "version": record.first_version + index,
            "type": kind,
            "epoch": record.epoch,
            "recorded_at_ms": record.recorded_at,
            "data": _told(record.payload[index]) if record.payload is not None else None,
        }
        sys.stdout.write(orjson.dumps(line).decode() + "\n")


def _told(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data.decode(errors="replace")


def command(
    name: str, callback: Callable[..., None], more: Sequence[click.Parameter], help: str
) -> click.Command:
    """A command that reads a log."""
    return click.Command(name, callback=callback, params=[*more, *options()], help=help)
