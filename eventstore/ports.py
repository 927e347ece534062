"""What the log needs from a database and from a bus.  The contracts are written once, here.

Every adapter passes the same suites (tests/contract).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from eventstore.events import Batch, Claim, Head, Record, Recorded, Unit


class LogReader(Protocol):
    """Everything that can be read of the log.  No transaction outlives one page or one call.

    All methods raise `StoreUnavailable` while the database cannot be reached.
    """

    async def incarnation(self) -> str:
        """The log's own id; new after a restore from a backup."""
        ...

    def read(self, stream: str, after: int = -1) -> AsyncIterator[Record]:
        """The stream's records that hold events after version `after`, in order, page by page.

        An unknown stream has none.  Erased records come with `payload=None`.
        """
        ...

    async def read_all(self, after: int, limit: int = 500) -> Sequence[Record]:
        """Records of all streams with a position above `after`, in order: a dense page of at most `limit`.

        A position is never skipped and never appears later than a higher one.
        """
        ...

    async def head(self, stream: str) -> Head | None:
        """Where a stream stands, or None."""
        ...

    async def versions(self, streams: Collection[str]) -> Mapping[str, int]:
        """Version of the last event of each of these streams, without those that nobody knows."""
        ...

    async def heads(
        self,
        *,
        category: str | None = None,
        tenant: str | None = None,
        states: Sequence[str] | None = None,
        owner: str | None = None,
        after: int | None = None,
        sealed: bool | None = None,
        newest_first: bool = False,
        limit: int = 100,
    ) -> Sequence[Head]:
        """Heads that match all that is given, by position of creation.

        `after` continues behind the head created at that position, in the direction of reading.
        """
        ...

    async def tally(
        self, *, categories: Sequence[str], states: Sequence[str], tenant: str | None = None
    ) -> Mapping[str, int]:
        """How many streams of these kinds are in one of the states, by tenant, for those that have any.

        Reads an entry of an index for each stream that is counted; with `tenant` only that one's are.
        """
        ...

    async def stored(self, tenant: str, *, after: int = 0, limit: int = 500) -> tuple[int, int | None]:
        """Bytes of payloads, blocks and documents of a tenant's streams, page by page.

        Counts the first `limit` streams created behind position `after`, and says behind which to go on; None
        once all were counted.
        """
        ...

    async def lineage(self, stream: str, kind: str) -> Sequence[tuple[Head, bytes | None]]:
        """The stream and its ancestors with their documents of `kind`, the oldest first.

        One query whatever the length.  Empty where the stream is unknown; ends at a missing parent.
        """
        ...

    async def document(self, stream: str, kind: str) -> bytes | None:
        """One document, or None."""
        ...

    async def documents(self, tenant: str, streams: Sequence[str], kind: str) -> Mapping[str, bytes]:
        """The documents of one kind of some of a tenant's streams, as far as they exist.  One query."""
        ...

    async def beside(self, stream: str) -> Mapping[str, bytes]:
        """All documents of a stream, by kind.  One query."""
        ...

    async def claim(self, scope: str, key: str) -> Claim | None:
        """The claim on a key that has not expired, or None."""
        ...

    async def salts(self, stream: str) -> Sequence[tuple[int, bytes]]:
        """(first version it is for, salt) in order; what remains of them after erasures."""
        ...

    async def cursor(self, name: str) -> int:
        """Where a reader of the whole log left off; 0 for a new one."""
        ...


class EventStore(LogReader, Protocol):
    """The log.  Its writer commits many units in one transaction, each with an outcome of its own."""

    @property
    def is_owner(self) -> bool:
        """Whether it is this process that writes the database: what others append travels to it first."""
        ...

    async def append(self, unit: Unit) -> Sequence[Recorded]:
        """Commit the unit, durably, or nothing of it.

        Raises `WrongExpectedVersion`, `Fenced` (any epoch but the stream's, before its version is looked at;
        a creator that comes too late always hears `WrongExpectedVersion`), `ClaimTaken`, `StreamNotFound` (an
        append or a document to no stream), `StoreUnavailable` (nothing was recorded), `OutcomeUnknown`, or
        ValueError for a unit that no log could record (see `eventstore.unit`).  One guilty unit never harms
        its neighbours.  A cancelled caller's unit may still be committed.

        An erasure comes before its own unit's documents, so those stay.  It takes the bytes out of the blocks
        of a sealed stream.

        Seals replace records by blocks: nothing that is read of the log changes.  A seal is refused like an
        append, and with `LogCorrupted` where its blocks do not lead to the head.  Then the stream's documents
        stand, too: `Fenced`, but for those of an erasure's unit.
        """
        ...

    async def take(self, stream: str, *, epoch: int, owner: str | None, state: str | None = None) -> Head:
        """Make `owner` the stream's writer, in a new epoch.

        Succeeds only for the caller that saw the current `epoch`; every other one gets `Fenced`.  An optional
        `state` is set with it.  Returns the new head.
        """
        ...

    async def renew(self, holder: str, ttl: float) -> None:
        """Create or extend a lease, by the store's own clock.  Raises `LeaseLost` once it was buried."""
        ...

    async def bury(self, holder: str) -> None:
        """Declare a holder dead: it can never renew again.  Idempotent."""
        ...

    async def expired(self) -> Sequence[str]:
        """Holders whose leases ran out, and those that were buried, while they still own streams; sorted.

        An owner that never held a lease is not among them: a host renews before it takes its first stream.
        """
        ...

    async def save_cursor(self, name: str, position: int) -> None:
        """Remember where a reader of the whole log is.  Never moves backwards."""
        ...

    async def aclose(self) -> None:
        """Commit what waits, then let go of everything."""
        ...


class Subscription(Protocol):
    """What arrives on a channel, from the moment `subscribe` was entered.  Lossy by contract."""

    async def next(self, timeout: float) -> Batch | None:
        """The next batch, or None after `timeout` seconds of silence or once something was dropped.

        Holds at most 256 batches or 1 MiB; on overflow it drops all it holds and says None at once.
        """
        ...

    @property
    def lost(self) -> bool:
        """Whether `next` last said None because something was dropped."""
        ...


class LiveBus(Protocol):
    """A hint that something was committed.  It may lose, repeat and reorder; followers heal from the log."""

    def publish(self, batch: Batch) -> None:
        """Tell followers.  Never blocks, never raises: what was committed is committed."""
        ...

    def subscribe(self, channel: str, *, ahead: bool = False) -> AbstractAsyncContextManager[Subscription]:
        """Hear a channel.  Once entered, nothing published later is missed but by the bus's own fault.

        `ahead` says that whatever will be published was not even asked for yet: entering waits for nobody
        then, and a bus that is slower than whoever is asked loses the first of it.
        """
        ...

    async def aclose(self) -> None:
        """Flush and disconnect."""
        ...


class PublicBus(Protocol):
    """Where events are published for subscribers, some of them captured by a stream that keeps them."""

    @property
    def payload_max(self) -> int:
        """The bytes that one message may have now, headers included."""
        ...

    async def publish(
        self, messages: Sequence[tuple[str, bytes, Mapping[str, str]]], *, capture: bool = True
    ) -> None:
        """Publish (subject, payload, headers), in order; returns once all are accepted.

        Messages whose subject is captured are acknowledged by the stream; with `capture=False` the stream is
        kept from taking them.  Raises `BusUnavailable`, or `CaptureUnavailable` where all were published.
        """
        ...


class BusUnavailable(Exception):
    """The bus cannot be reached, or did not acknowledge in time.  Publishing the same again is safe."""


class CaptureUnavailable(BusUnavailable):
    """All messages were published, but from index `first` on the stream did not acknowledge them."""

    def __init__(self, first: int, reason: str) -> None:
        super().__init__(first, reason)
        self.first, self.reason = first, reason

    def __str__(self) -> str:
        return f"the stream does not take events: {self.reason}"
