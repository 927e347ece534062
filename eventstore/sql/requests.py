"""What may be asked of the one writer, in process or over its socket, and how much room it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eventstore.errors import EventStoreError
from eventstore.events import Head, Recorded, Unit


@dataclass(frozen=True, slots=True)
class Take:
    """`EventStore.take`."""

    stream: str
    epoch: int
    owner: str | None
    state: str | None


@dataclass(frozen=True, slots=True)
class Renew:
    """`EventStore.renew`; `ttl` in seconds."""

    holder: str
    ttl: float


@dataclass(frozen=True, slots=True)
class Bury:
    """`EventStore.bury`."""

    holder: str


@dataclass(frozen=True, slots=True)
class Expired:
    """`EventStore.expired`."""


@dataclass(frozen=True, slots=True)
class SaveCursor:
    """`EventStore.save_cursor`."""

    name: str
    position: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Whether the writer still commits: it answers this, like everything else, in its turn."""


Request = Unit | Take | Renew | Bury | Expired | SaveCursor | Ping
Answer = Sequence[Recorded] | Head | Sequence[str] | None
Outcome = Answer | EventStoreError
"""What became of a request: its answer, or the error to raise."""

_OVERHEAD = 256
"""Bytes that a request takes beside its contents, roughly."""


def weight(request: Request) -> int:
    """Bytes that a request takes while it waits, roughly."""
    if not isinstance(request, Unit):
        return _OVERHEAD
    size = _OVERHEAD
    for append in request.appends:
        for event in append.events:
            size += len(event.data) + 32
    for document in request.documents:
        size += len(document.data)
    for seal in request.seals:
        size += sum(len(block.data) for block in seal.blocks)
    return size
