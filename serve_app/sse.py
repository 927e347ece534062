"""Batches of frames, as `follow` hands them over, onto an SSE connection or into one JSON body.

A frame leaves in one write with others of its batch, never in two: some clients forget what they read of a
frame when its end comes later.  Keep-alives are comments; `id:` and `retry:` are never sent.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Final

from eventstore.errors import EventStoreError
from eventstore.events import Batch
from runtime.response.wire import DONE_FRAME, data_of
from serve_app.call import PIECE_BYTES, Call, ClientLeft, Departure

log = logging.getLogger(__name__)

Batches = AsyncGenerator[Batch | None, None]

_OBFUSCATION: Final = re.compile(rb',"obfuscation":"[0-9a-f]*"\}(?=\n\n\Z)')
KEEP_ALIVE: Final = b": keep-alive\n\n"
HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # Proxies of the nginx kind would collect frames.
)


async def send_events(call: Call, batches: Batches, departure: Departure, keep_alive: float) -> None:
    """Every frame as it comes, then `[DONE]`.

    Returns early, without a terminal event, where the log was away for too long: the connection is cut then,
    and the client may resume.  Raises `ClientLeft`.
    """
    await call.begin(*HEADERS)
    written = time.monotonic()
    try:
        async for batch in batches:
            if batch is None:
                if departure.noticed():
                    raise ClientLeft
                if time.monotonic() - written < keep_alive:
                    continue
                await call.write(KEEP_ALIVE)
            elif batch.last:
                await _write(call, (*(batch.frames or ()), DONE_FRAME), last=True)
                return
            else:
                await _write(call, batch.frames or ())
                if departure.noticed():
                    raise ClientLeft
            written = time.monotonic()
    except EventStoreError as error:
        log.warning("a stream was cut: %s", error)


async def _write(call: Call, frames: Sequence[bytes], *, last: bool = False) -> None:
    """Whole frames in each write, but for those that are long themselves."""
    if sum(map(len, frames)) > PIECE_BYTES:
        # Not joined first: the last frames of a long answer are many times its words.
        group: list[bytes] = []
        size = 0
        for frame in frames:
            if group and size + len(frame) > PIECE_BYTES:
                await call.write(b"".join(group))
                group, size = [], 0
            group.append(frame)
            size += len(frame)
        frames = group
    await call.write(b"".join(frames), last=last)


async def without_obfuscation(batches: Batches) -> Batches:
    """The same frames without their padding, which is the last member of a delta."""
    async for batch in batches:
        if batch is None:
            yield None
        else:
            frames = tuple(_OBFUSCATION.sub(b"}", frame) for frame in batch.frames or ())
            yield replace(batch, frames=frames)


async def last_frame(batches: Batches, departure: Departure) -> bytes | None:
    """The frame of the terminal event, once it is there.

    None where the last batch showed nothing.  Raises `ClientLeft` and the log's errors.
    """
    async for batch in batches:
        if batch is not None and batch.last:
            return batch.frames[-1] if batch.frames else None
        if departure.noticed():
            raise ClientLeft
    return None


def snapshot_of(frame: bytes) -> bytes:
    """The response object inside a lifecycle event's frame, byte for byte as it was shown."""
    data = data_of(frame)
    return data[data.index(b',"response":') + len(b',"response":') : -1]
