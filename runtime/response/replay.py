"""A response read back from the log: as frames for followers, or as a state."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Final

from eventstore.errors import StreamNotFound
from eventstore.events import NO_STREAM, Batch, Record
from eventstore.pages import payload_size
from eventstore.ports import LogReader
from runtime.response import recorder
from runtime.response.codec import decode
from runtime.response.state import INITIAL, ResponseState, fold

KEPT_BYTES: Final = 1 << 20
"""A fold of so many bytes of events is kept however long nobody asks for more."""


class ResponseReplay:
    """The log as a follower of one response reads it; see `eventstore.follow.Replay`.

    Keeps its fold between reads, so that healing a gap costs what is new and not what was long ago.
    """

    def __init__(self, reader: LogReader, stream: str) -> None:
        self._reader = reader
        self._stream = stream
        self._state = INITIAL
        self._last: Batch | None = None
        """The batch up to which is folded."""
        self._bytes = 0
        """Of the events that are folded."""

    @property
    def state(self) -> ResponseState:
        """The fold of what was read so far."""
        return self._state

    def relieve(self) -> None:
        """Let go of a large fold, also while a `read` stands still: it is made anew for what comes next."""
        if self._bytes > KEPT_BYTES:
            self._forget()

    def _forget(self) -> None:
        self._state, self._last, self._bytes = INITIAL, None, 0

    def following(self, record: Record) -> Batch | None:
        """What a record shows that follows at once on what is folded; None where it does not.

        Raises `UnknownEvent`.
        """
        version = NO_STREAM if self._last is None else self._last.version
        if record.payload is None or record.first_version != version + 1:
            return None
        return self._fold(record, record.payload)

    def _fold(self, record: Record, payload: Sequence[bytes]) -> Batch:
        batch, self._state = recorder.batch(self._state, decode(record), record)
        self._last = batch
        self._bytes += payload_size(payload)
        return batch

    async def read(self, after: int) -> AsyncGenerator[Batch, None]:
        """Everything committed so far with frame numbers above `after`, as SSE frames.

        Raises `StreamNotFound` where the response was erased, `UnknownEvent`, `StoreUnavailable`.
        """
        if after + 1 < self._state.next_number:
            self._forget()  # Somebody reads again what is folded away.
        told_end, reading = False, True
        while reading:
            reading = False
            version = NO_STREAM if self._last is None else self._last.version
            async for record in self._reader.read(self._stream, after=version):
                if record.payload is None:
                    raise StreamNotFound(self._stream)
                batch = self._fold(record, record.payload)
                if batch.end > after or batch.last:
                    told_end = batch.last
                    yield batch
                    if self._state is INITIAL and not told_end:
                        after, reading = batch.end, True  # Relieved meanwhile: fold again up to here.
                        break
        if self._last is not None and self._last.last and not told_end:
            yield replace(self._last, first=self._last.end + 1, count=0, frames=())


async def fold_stream(
    reader: LogReader, stream: str, state: ResponseState = INITIAL, version: int = NO_STREAM
) -> tuple[ResponseState, int]:
    """The state of a response and its version, going on from those given.

    An unknown stream gives `(INITIAL, NO_STREAM)`; an erased one a state that says so.  Raises `UnknownEvent`
    and `StoreUnavailable`.
    """
    async for record in reader.read(stream, after=version):
        state = fold(decode(record), state)
        version = record.last_version
    return state, version
