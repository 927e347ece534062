"""`rayspond replay`: the stream of a response, byte for byte as its clients got it."""

from __future__ import annotations

import sys
from contextlib import aclosing

import click

from eventstore.errors import StreamNotFound
from eventstore.ports import LogReader
from runtime.response.items import is_response_id
from runtime.response.replay import ResponseReplay
from runtime.response.wire import DONE_FRAME
from serve_app.commands.log_access import check_known, with_log
from serve_app.commands.log_access import command as reads_log
from serve_app.launch.errors import CannotStart


def _run(data_dir: str | None, log_url: str | None, *, response_id: str, after: int) -> None:
    async def print_all(reader: LogReader) -> None:
        if not is_response_id(response_id):
            raise CannotStart(f"{response_id!r} is not the id of a response")
        await check_known(reader, response_id)
        try:
            async with aclosing(ResponseReplay(reader, response_id).read(-1)) as batches:
                async for batch in batches:
                    frames = (batch.frames or ())[max(0, after + 1 - batch.first) :]
                    sys.stdout.buffer.write(b"".join(frames) + (DONE_FRAME if batch.last else b""))
        except StreamNotFound:
            raise CannotStart(
                f"{response_id!r} was erased: rayspond events says by whom, when and why"
            ) from None
        sys.stdout.buffer.flush()

    with_log(data_dir, log_url, print_all)


command = reads_log(
    "replay",
    _run,
    [
        click.Argument(["response_id"]),
        click.Option(
            ["--starting-after", "after"],
            type=click.IntRange(-1),
            default=-1,
            help="Print only what follows this sequence number.",
        ),
    ],
    "Print the stream of a response from the log, byte for byte as its clients got it.",
)
