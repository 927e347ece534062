"""A log that followers replay, and what they must have seen of it: for the tests of `follow`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from eventstore.errors import StoreUnavailable
from eventstore.events import Batch


def frame(number: int) -> bytes:
    return b"frame %d" % number


def batches(counts: Sequence[int]) -> list[Batch]:
    """A whole stream whose commits showed `counts` frames; the last of them ends it."""
    log = ShownLog()
    for index, count in enumerate(counts):
        log.commit(count, last=index == len(counts) - 1)
    return log.batches


@dataclass
class ShownLog:
    """The truth: what was committed.  `visible` bounds what a lagging reader gets to see."""

    batches: list[Batch] = field(default_factory=list)
    visible: int | None = None
    available: bool = True

    @property
    def end(self) -> int:
        return self.batches[-1].end if self.batches else -1

    async def newest(self) -> int:
        if not self.available:
            raise StoreUnavailable("the test says so")
        return len(self.batches[: self.visible]) - 1

    def commit(self, count: int, *, last: bool = False) -> Batch:
        first, version = self.end + 1, len(self.batches)
        frames = tuple(frame(number) for number in range(first, first + count))
        batch = Batch("s", first, count, frames, version=version, position=version + 1, last=last)
        self.batches.append(batch)
        return batch


@dataclass
class LogReplay:
    """`Replay` as a fold would do it: it gives whole batches, begins with the one that holds after + 1."""

    log: ShownLog
    reads: int = 0

    async def read(self, after: int) -> AsyncGenerator[Batch, None]:
        self.reads += 1
        seen = 0
        while seen < len(self.log.batches[: self.log.visible]):
            if not self.log.available:
                raise StoreUnavailable("the test says so")
            batch = self.log.batches[seen]
            if batch.end > after or batch.last:
                yield batch
            seen += 1


def numbers(seen: Sequence[Batch | None]) -> list[int]:
    """The frames' numbers, in the order seen; each must carry the bytes that were committed under it."""
    found: list[int] = []
    for batch in seen:
        if batch is not None:
            assert batch.frames is not None
            assert len(batch.frames) == batch.count
            assert batch.count or batch.last, "a batch that shows nothing is not delivered"
            found.extend(range(batch.first, batch.first + batch.count))
            assert batch.frames == tuple(frame(n) for n in range(batch.first, batch.first + batch.count))
    return found
