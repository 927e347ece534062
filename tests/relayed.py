"""A log to relay, and what must have come of it: for the tests of the relay, in memory and over NATS."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from eventstore.errors import StreamNotFound
from eventstore.events import ERASED, NO_STREAM, Append, Batch, NewEvent, NewStream, Record, Unit
from eventstore.memory import MemoryEventStore
from eventstore.ports import LogReader


def plain(stream: str, number: int) -> bytes:
    return f"{stream}-{number}".encode()


class Shown:
    """A log whose every event shows one frame, and the batches that a perfect bus would carry."""

    def __init__(self, frame: Callable[[str, int], bytes] = plain) -> None:
        self.store = MemoryEventStore()
        self._frame = frame
        self.batches: list[Batch] = []
        self.versions: dict[str, int] = {}
        self.opened = 0
        self.unknown: str | None = None
        """The stream that nobody can show now."""

    async def commit(self, stream: str, count: int = 1) -> Batch:
        version = self.versions.get(stream, NO_STREAM)
        new = NewStream("quiet" if stream == "quiet" else "shown", "p", "s") if version == NO_STREAM else None
        events = [NewEvent("e", self._frame(stream, version + 1 + n)) for n in range(count)]
        (recorded,) = await self.store.append(Unit([Append(stream, version, 1, events, new=new)]))
        self.versions[stream] = recorded.last_version
        frames = tuple(event.data for event in events)
        batch = Batch(stream, version + 1, count, frames, recorded.last_version, recorded.position, "p")
        if stream != "quiet":
            self.batches.append(batch)
        return batch

    async def erase(self, stream: str) -> None:
        """Take a stream's words, and record that."""
        await self.store.append(
            Unit([Append(stream, self.versions[stream], 1, [NewEvent(ERASED, b"{}")], erase=True)])
        )
        self.versions[stream] += 1

    async def open_replay(self, stream: str) -> StreamReplay | None:
        self.opened += 1
        if stream == self.unknown:
            raise ValueError("no such event")
        return None if stream == "quiet" else StreamReplay(self.store, stream)

    def expected(self) -> list[str]:
        return [frame.decode() for batch in self.batches for frame in batch.frames or ()]


class StreamReplay:
    """`Replay` of a stream whose frames are its events."""

    def __init__(self, store: LogReader, stream: str) -> None:
        self.store, self.stream, self.version = store, stream, NO_STREAM

    def following(self, record: Record) -> Batch | None:
        if record.payload is None or record.first_version != self.version + 1:
            return None
        self.version = record.last_version
        return batch_of(record)

    async def read(self, after: int) -> AsyncGenerator[Batch, None]:
        async for record in self.store.read(self.stream, after):
            if record.payload is None:
                raise StreamNotFound(self.stream)
            self.version = record.last_version
            yield batch_of(record)


def batch_of(record: Record) -> Batch:
    assert record.payload is not None
    return Batch(
        record.stream,
        record.first_version,
        record.count,
        record.payload,
        record.last_version,
        record.position,
        "p",
    )
