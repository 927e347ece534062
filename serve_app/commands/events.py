"""`rayspond events`: what the log holds of one response."""

from __future__ import annotations

import click

from eventstore.ports import LogReader
from serve_app.commands.log_access import check_known, show, with_log
from serve_app.commands.log_access import command as reads_log


def _run(data_dir: str | None, log_url: str | None, *, stream: str) -> None:
    async def print_all(reader: LogReader) -> None:
        await check_known(reader, stream)
        async for record in reader.read(stream):
            show(record)

    with_log(data_dir, log_url, print_all)


command = reads_log(
    "events",
    _run,
    [click.Argument(["stream"])],
    "Print the events of a response (or another stream) as the log holds them, a line of JSON each.",
)
