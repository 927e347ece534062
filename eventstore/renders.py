"""The batch behind any record of the log: what the live bus would have said of it, had nobody lost it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final, Protocol

from eventstore.errors import StreamNotFound
from eventstore.events import Batch, Record
from eventstore.follow import Replay

OPEN_MAX: Final = 8 * 1024
"""How many streams' folds are kept until they end, at some KiB each; another one is folded from its start
again, for each of its records where more streams than these take turns."""


class Rendering(Replay, Protocol):
    """A replay that need not read what its caller has read."""

    def following(self, record: Record) -> Batch | None:
        """What a record shows that follows at once on what was read so far; None where it does not."""
        ...


class _Open:
    """A stream's replay, and up to which frame and position it was read; None where it never shows any."""

    __slots__ = ("position", "replay", "seen")

    def __init__(self, replay: Rendering | None) -> None:
        self.replay = replay
        self.seen = -1
        self.position = 0


class Renders:
    """Renders records by replays that are kept open, the latest used ones."""

    def __init__(
        self, open_replay: Callable[[str], Awaitable[Rendering | None]], open_max: int = OPEN_MAX
    ) -> None:
        """`open_replay(stream)` gives a replay from the start, or None for streams that show nothing."""
        self._open_replay = open_replay
        self._open_max = open_max
        self._open: OrderedDict[str, _Open] = OrderedDict()

    async def batch(self, record: Record) -> Batch | None:
        """What the record showed, with its frames; None where it showed nothing or was erased.

        Raises `StoreUnavailable`, and what the replay raises for events that it does not know.
        """
        if record.payload is None:
            return None
        opened = await self._opened(record.stream)
        if opened.replay is None:
            return None
        try:
            batch = opened.replay.following(record)
            if batch is None:
                batch = await self._find(opened.replay, opened, record.position)
            else:
                opened.seen, opened.position = batch.end, batch.position
            if batch is not None and batch.last:
                self._open.pop(record.stream, None)
            return batch
        except StreamNotFound:
            return None  # It was erased meanwhile.
        except BaseException:
            # Half read is not known where; the next attempt begins anew.
            self._open.pop(record.stream, None)
            raise

    async def _find(self, replay: Replay, opened: _Open, position: int) -> Batch | None:
        if position <= opened.position:
            opened.seen = -1  # Asked again for what was read: from the start.
        async with aclosing(replay.read(opened.seen)) as batches:
            async for batch in batches:
                if batch.position > position:
                    return None  # It stays to be read: `seen` is not moved.
                opened.seen, opened.position = batch.end, batch.position
                if batch.position == position:
                    return batch
        return None

    async def _opened(self, stream: str) -> _Open:
        opened = self._open.get(stream)
        if opened is None:
            opened = self._open[stream] = _Open(await self._open_replay(stream))
            if len(self._open) > self._open_max:
                self._open.popitem(last=False)
        self._open.move_to_end(stream)
        return opened
