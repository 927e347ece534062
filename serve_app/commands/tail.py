"""`rayspond tail`: every event of the log, as it is recorded."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Final

import click

from eventstore.ports import LogReader
from serve_app.commands.log_access import command as reads_log
from serve_app.commands.log_access import show, with_log

PAGE: Final = 500
LOOK_S: Final = 0.2
"""Seconds between looks for what is new."""


def _run(data_dir: str | None, log_url: str | None, *, after: int | None) -> None:
    async def print_all(reader: LogReader) -> None:
        position = await _end(reader) if after is None else after
        while True:
            page = await reader.read_all(position, PAGE)
            for record in page:
                show(record)
                position = record.position
            sys.stdout.flush()
            if not page:
                await asyncio.sleep(LOOK_S)

    with suppress(KeyboardInterrupt):
        with_log(data_dir, log_url, print_all)


async def _end(reader: LogReader) -> int:
    """The last position: it lies somewhere behind the beginning of the newest stream."""
    newest = await reader.heads(newest_first=True, limit=1)
    position = newest[0].created if newest else 0
    while page := await reader.read_all(position, PAGE):
        position = page[-1].position
    return position


command = reads_log(
    "tail",
    _run,
    [
        click.Option(
            ["--after"],
            type=click.IntRange(0),
            help="Begin behind this position of the log; 0 is its beginning.  Without, with what is new.",
        )
    ],
    "Print every event of the log as it is recorded, a line of JSON each, until Ctrl-C.",
)
