"""The past from the log, then the future from the bus, as one sequence without gap or repeat.

The log is the truth and the bus a hint: whatever the bus loses, repeats, delays or reorders, a follower sees
frame after + 1, after + 2 ... to the end, once each.  Frames go past this module untouched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Protocol

from eventstore.errors import LogCorrupted, StoreUnavailable
from eventstore.events import Batch
from eventstore.meter import METER
from eventstore.ports import Subscription

PATIENCE: Final = 30.0
"""Seconds that a log which cannot be reached is waited for, before the follower is let go."""

_BACKOFF_MIN: Final = 0.05  # Seconds: a blip costs a reader little,
_BACKOFF_MAX: Final = 1.0  # and a crowd of readers does not keep a struggling log down.


_HEALED: Final = METER.counter("follow_heals", "Times that a follower found in the log what the bus lost.")


class Replay(Protocol):
    """The log as a follower reads it."""

    def read(self, after: int) -> AsyncGenerator[Batch, None]:
        """Everything committed so far with frame numbers above `after`, in order, with its bytes.

        Called again and again with a growing `after`: a replay keeps its own fold between calls, so that each
        costs only what is new.  Batches may begin before `after` + 1, but none that could still be needed may
        be left out.  Where the stream has ended, the final batch says `last` even if nothing above `after` is
        left.  No transaction is open while a batch is handed over.  Raises `StoreUnavailable`.
        """
        ...


async def follow(
    replay: Replay,
    live: Subscription,
    after: int = -1,
    *,
    silence: float = 1.0,
    fresh: bool = False,
    patience: float = PATIENCE,
    newest: Callable[[], Awaitable[int]] | None = None,
) -> AsyncGenerator[Batch | None, None]:
    """Every frame after number `after`, each once, in order, until the batch that is the last one.

    `live` must have been subscribed to before this is called: what is committed between the reading of the
    log and a later subscription would be heard by nobody.  `fresh` says that nothing was committed before
    that moment, and saves the first look at the log.  `newest` tells the version of the stream's last event
    for less than a look costs: silence is looked into only where that is not the version seen last.  Where
    the bus brought the last frames and knows of no loss it may be late: then only a second silence is.

    Yields None after each silence in which the log got nothing new or could not be reached: about once in
    `silence` seconds where nothing happens, so that the caller can keep its connection alive and notice that
    its client left.  Batches without frames are passed over, except the last; the last one is yielded even
    where all of it was past (`after` beyond the end), then without frames.

    Raises `StoreUnavailable` once the log was away for `patience` seconds, `LogCorrupted` if it has a gap.
    Close it (`contextlib.aclosing`) where it may be left early.
    """
    seen, look, silent, lost, patient = after, not fresh, False, False, True
    version: int | None = None
    while True:
        if look:
            before = seen
            async with aclosing(_heal(replay, seen, patience)) as healed:
                async for piece in healed:
                    if lost and piece is not None:
                        _HEALED.add()
                        lost = False
                    yield piece
                    if piece is not None:
                        if piece.last:
                            return
                        seen = piece.end
            if silent and seen == before:
                yield None
        heard = await live.next(silence)
        silent = heard is None
        if heard is None:
            # Silence proves nothing.  What is committed by now is in the log when it is looked at.
            stands = await _told(newest)
            look = lost = stands is None or (stands != version and (live.lost or not patient))
            # The bus may only be late: a look costs many times what hearing does, and makes it later still.
            patient = patient and stands == version
            if look:
                version = stands
            else:
                yield None
            continue
        # What is missing before or in this batch is in the log: look there.
        look = lost = heard.first > seen + 1 or _lacks_bytes(heard, seen)
        piece = None if look else _above(heard, seen)
        patient = piece is not None
        if piece is not None:
            yield piece
            if piece.last:
                return
            # Only of what showed something: a version that shows nothing may be an erasure.
            seen, version = piece.end, piece.version


async def _told(newest: Callable[[], Awaitable[int]] | None) -> int | None:
    if newest is None:
        return None
    try:
        return await newest()
    except StoreUnavailable:
        return None  # Who looks waits for it.


async def _heal(replay: Replay, seen: int, patience: float) -> AsyncGenerator[Batch | None, None]:
    """What the log holds above frame `seen`, and None for each time that it could not be reached."""
    clock = asyncio.get_running_loop().time
    away_since: float | None = None
    delay = _BACKOFF_MIN
    while True:
        try:
            async with aclosing(replay.read(seen)) as batches:
                async for batch in batches:
                    away_since, delay = None, _BACKOFF_MIN
                    if batch.first > seen + 1 or _lacks_bytes(batch, seen):
                        missing = f"frame {seen + 1} is missing; the log goes on with {batch.first}"
                        raise LogCorrupted(batch.channel, batch.version, missing)
                    if (piece := _above(batch, seen)) is not None:
                        yield piece
                        seen = piece.end
            return
        except StoreUnavailable:
            away_since = clock() if away_since is None else away_since
            if clock() - away_since >= patience:
                raise
        yield None
        await asyncio.sleep(delay)
        delay = min(2 * delay, _BACKOFF_MAX)


def _lacks_bytes(batch: Batch, seen: int) -> bool:
    """Whether frames above `seen` are counted but not here."""
    return batch.end > seen and (batch.frames is None or len(batch.frames) != batch.count)


def _above(batch: Batch, seen: int) -> Batch | None:
    """The part of a batch above frame `seen`: all, some, or None for nothing worth telling."""
    past = min(seen + 1 - batch.first, batch.count)
    if past == batch.count and not batch.last:
        return None
    if past == 0 and batch.frames is not None:
        return batch
    frames = (batch.frames or ())[past:]
    return replace(batch, first=batch.first + past, count=batch.count - past, frames=frames)
