"""The log and the live bus in one process's memory: complete, but gone with the process.

The reference that the other adapters are compared with.  Nothing here may know of a database or a network.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace

from eventstore import chain
from eventstore.block import bare
from eventstore.documents import opened
from eventstore.errors import ClaimTaken, Fenced, LeaseLost, StoreUnavailable, StreamNotFound
from eventstore.events import Append, Batch, Block, Claim, Head, Record, Recorded, Unit
from eventstore.ports import Subscription
from eventstore.subscription import BufferedSubscription
from eventstore.unit import check_documents, check_head, check_seal, check_unit, next_head, sealed_head


def wall_clock() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class _Stream:
    head: Head
    records: list[Record] = field(default_factory=list)
    salts: list[tuple[int, bytes]] = field(default_factory=list)
    documents: dict[str, bytes] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    """What databases keep of a sealed stream; here its records stay as well."""

    def holds(self, record: Record) -> bool:
        """Whether a block holds the record."""
        return bool(self.blocks) and record.last_version <= self.blocks[-1].last_version

    def beside(self) -> Mapping[str, bytes]:
        """Its documents, whether they are packed or not."""
        return opened(self.documents, self.blocks[0] if self.blocks else None)


class MemoryEventStore:
    """`EventStore` in memory.

    `now` gives wall-clock milliseconds, `monotonic` the seconds that leases are measured in, `entropy` random
    bytes.  Tests may set `available` to False, and every call raises `StoreUnavailable`.
    """

    def __init__(
        self,
        *,
        now: Callable[[], int] = wall_clock,
        monotonic: Callable[[], float] = time.monotonic,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.available = True
        self._now, self._monotonic, self._entropy = now, monotonic, entropy
        self._incarnation = entropy(8).hex()
        self._records: list[Record] = []
        self._streams: dict[str, _Stream] = {}
        self._claims: dict[tuple[str, str], Claim] = {}
        self._leases: dict[str, float] = {}
        self._buried: set[str] = set()
        self._cursors: dict[str, int] = {}

    async def incarnation(self) -> str:
        """See `LogReader`."""
        self._check_available()
        return self._incarnation

    async def read(self, stream: str, after: int = -1) -> AsyncIterator[Record]:
        """See `LogReader`."""
        self._check_available()
        found = self._streams.get(stream)
        index = 0
        # By index, not by iterator: records may be appended, or erased, between two yields.
        while found is not None and index < len(found.records):
            if found.records[index].last_version > after:
                yield found.records[index]
                self._check_available()
            index += 1

    async def read_all(self, after: int, limit: int = 500) -> Sequence[Record]:
        """See `LogReader`."""
        self._check_available()
        return self._records[after : after + limit]

    async def head(self, stream: str) -> Head | None:
        """See `LogReader`."""
        self._check_available()
        return self._head_of(stream)

    async def versions(self, streams: Collection[str]) -> Mapping[str, int]:
        """See `LogReader`."""
        self._check_available()
        heads = (self._head_of(stream) for stream in streams)
        return {head.stream: head.version for head in heads if head is not None}

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
        """See `LogReader`."""
        self._check_available()

        def matches(head: Head) -> bool:
            return (
                (category is None or head.category == category)
                and (tenant is None or head.tenant == tenant)
                and (states is None or head.state in states)
                and (owner is None or head.owner == owner)
                and (sealed is None or head.sealed == sealed)
                and (after is None or (head.created < after if newest_first else head.created > after))
            )

        heads = [stream.head for stream in self._streams.values() if matches(stream.head)]
        return sorted(heads, key=lambda head: head.created, reverse=newest_first)[:limit]

    async def tally(
        self, *, categories: Sequence[str], states: Sequence[str], tenant: str | None = None
    ) -> Mapping[str, int]:
        """See `LogReader`."""
        self._check_available()
        heads = (stream.head for stream in self._streams.values())
        return Counter(
            head.tenant
            for head in heads
            if head.category in categories and head.state in states and tenant in (None, head.tenant)
        )

    async def stored(self, tenant: str, *, after: int = 0, limit: int = 500) -> tuple[int, int | None]:
        """See `LogReader`."""
        page = await self.heads(tenant=tenant, after=after, limit=limit)
        streams = [self._streams[head.stream] for head in page]
        payloads = (
            record.payload for stream in streams for record in stream.records if not stream.holds(record)
        )
        size = sum(len(chain.frame(payload)) for payload in payloads if payload is not None)
        size += sum(len(data) for stream in streams for data in stream.documents.values())
        size += sum(len(block.data) for stream in streams for block in stream.blocks)
        return size, page[-1].created if len(page) == limit else None

    async def lineage(self, stream: str, kind: str) -> Sequence[tuple[Head, bytes | None]]:
        """See `LogReader`."""
        self._check_available()
        line: dict[str, tuple[Head, bytes | None]] = {}
        name: str | None = stream
        # A stream met twice would be its own ancestor: the walk ends there.
        while name is not None and name not in line and (found := self._streams.get(name)) is not None:
            line[name] = (found.head, found.beside().get(kind))
            name = found.head.parent
        return list(reversed(line.values()))

    async def document(self, stream: str, kind: str) -> bytes | None:
        """See `LogReader`."""
        self._check_available()
        found = self._streams.get(stream)
        return found.beside().get(kind) if found else None

    async def documents(self, tenant: str, streams: Sequence[str], kind: str) -> Mapping[str, bytes]:
        """See `LogReader`."""
        self._check_available()
        found = {name: self._streams[name] for name in streams if name in self._streams}
        beside = {name: found[name].beside() for name in found if found[name].head.tenant == tenant}
        return {name: documents[kind] for name, documents in beside.items() if kind in documents}

    async def beside(self, stream: str) -> Mapping[str, bytes]:
        """See `LogReader`."""
        self._check_available()
        found = self._streams.get(stream)
        return dict(found.beside()) if found else {}

    async def claim(self, scope: str, key: str) -> Claim | None:
        """See `LogReader`."""
        self._check_available()
        return self._valid_claim(scope, key)

    async def salts(self, stream: str) -> Sequence[tuple[int, bytes]]:
        """See `LogReader`."""
        self._check_available()
        found = self._streams.get(stream)
        return list(found.salts) if found else []

    async def cursor(self, name: str) -> int:
        """See `LogReader`."""
        self._check_available()
        return self._cursors.get(name, 0)

    @property
    def is_owner(self) -> bool:
        """See `EventStore`: all share it."""
        return True

    async def append(self, unit: Unit) -> Sequence[Recorded]:
        """See `EventStore`."""
        check_unit(unit)
        self._check_available()
        self._refuse_losers(unit)
        # Nothing can fail from here on, so all of the unit happens.
        recorded_at = self._now()
        recorded = [self._record(append, recorded_at) for append in unit.appends]
        for claim in unit.claims:
            self._claims[claim.scope, claim.key] = claim
        for document in unit.documents:
            documents = self._streams[document.stream].documents
            if document.data:
                documents[document.kind] = document.data
            else:
                documents.pop(document.kind, None)
        for seal in unit.seals:
            found = self._streams[seal.stream]
            found.head, found.blocks = sealed_head(found.head), list(seal.blocks)
        return recorded

    async def take(self, stream: str, *, epoch: int, owner: str | None, state: str | None = None) -> Head:
        """See `EventStore`."""
        self._check_available()
        found = self._streams.get(stream)
        if found is None:
            raise StreamNotFound(stream)
        head = found.head
        if head.epoch != epoch:
            raise Fenced(stream, epoch, head.epoch)
        state = head.state if state is None else state
        found.head = replace(head, epoch=epoch + 1, owner=owner, state=state)
        return found.head

    async def renew(self, holder: str, ttl: float) -> None:
        """See `EventStore`."""
        self._check_available()
        if holder in self._buried:
            raise LeaseLost(holder)
        self._leases[holder] = self._monotonic() + ttl

    async def bury(self, holder: str) -> None:
        """See `EventStore`."""
        self._check_available()
        self._buried.add(holder)

    async def expired(self) -> Sequence[str]:
        """See `EventStore`."""
        self._check_available()
        now = self._monotonic()
        owners = {stream.head.owner for stream in self._streams.values()}
        return sorted(
            owner
            for owner in owners
            if owner is not None
            and (owner in self._buried or (owner in self._leases and self._leases[owner] <= now))
        )

    async def save_cursor(self, name: str, position: int) -> None:
        """See `EventStore`."""
        self._check_available()
        self._cursors[name] = max(position, self._cursors.get(name, 0))

    async def aclose(self) -> None:
        """See `EventStore`."""
        self.available = False

    def _check_available(self) -> None:
        if not self.available:
            raise StoreUnavailable("it is closed")

    def _valid_claim(self, scope: str, key: str) -> Claim | None:
        claim = self._claims.get((scope, key))
        if claim is None or (claim.expires_at is not None and claim.expires_at <= self._now()):
            return None
        return claim

    def _head_of(self, stream: str) -> Head | None:
        found = self._streams.get(stream)
        return found.head if found else None

    def _refuse_losers(self, unit: Unit) -> None:
        for append in unit.appends:
            check_head(append, self._head_of(append.stream))
        for seal in unit.seals:
            check_seal(seal, self._head_of(seal.stream))
        for claim in unit.claims:
            if (taken := self._valid_claim(claim.scope, claim.key)) is not None:
                raise ClaimTaken(claim.scope, claim.key, taken.fingerprint, taken.stream)
        check_documents(unit, self._head_of)

    def _record(self, append: Append, recorded_at: int) -> Recorded:
        found = self._streams.get(append.stream)
        first = append.expected + 1
        salts = found.salts if found and not append.erase else [(first, self._entropy(chain.SALT_BYTES))]
        payload = tuple(event.data for event in append.events)
        types = tuple(event.type for event in append.events)
        digest = chain.digest(salts[-1][1], first, chain.frame(payload))
        record = Record(
            position=len(self._records) + 1,
            stream=append.stream,
            first_version=first,
            types=types,
            schema=append.schema,
            epoch=append.epoch,
            recorded_at=recorded_at,
            digest=digest,
            chain=chain.link(
                found.head.chain if found else chain.genesis(append.stream),
                stream=append.stream,
                first_version=first,
                types=types,
                schema=append.schema,
                epoch=append.epoch,
                recorded_at=recorded_at,
                digest=digest,
            ),
            payload=payload,
        )
        head = next_head(append, found.head if found else None, chain=record.chain, position=record.position)
        if found is None:
            found = self._streams[append.stream] = _Stream(head)
        elif append.erase:
            self._erase(found)
        found.head, found.salts = head, salts
        found.records.append(record)
        self._records.append(record)
        return Recorded(append.stream, record.position, first, record.last_version, recorded_at)

    def _erase(self, stream: _Stream) -> None:
        stream.blocks = [bare(block, stream.salts[-1][1]) for block in stream.blocks]
        stream.documents.clear()
        stream.records = [replace(record, payload=None) for record in stream.records]
        for record in stream.records:
            self._records[record.position - 1] = record


class MemoryLiveBus:
    """`LiveBus` within one event loop.

    `distort` says what followers get to hear instead of a published batch, so that tests can lose, repeat,
    delay and reorder: it is called with every batch and returns those to deliver now.
    """

    def __init__(self, distort: Callable[[Batch], Iterable[Batch]] = lambda batch: (batch,)) -> None:
        self.distort = distort
        self._subscriptions: dict[str | None, list[BufferedSubscription]] = {}
        """By channel; those under None hear all channels."""

    def publish(self, batch: Batch) -> None:
        """See `LiveBus`."""
        for heard in self.distort(batch):
            for channel in (heard.channel, None):
                for subscription in self._subscriptions.get(channel, ()):
                    subscription.offer(heard)

    def subscribe(self, channel: str, *, ahead: bool = False) -> AbstractAsyncContextManager[Subscription]:
        """See `LiveBus`."""
        return self._hear(channel, BufferedSubscription())

    def tap(self) -> AbstractAsyncContextManager[Subscription]:
        """Hear all channels: for the relay."""
        return self._hear(None, BufferedSubscription())

    async def aclose(self) -> None:
        """See `LiveBus`."""
        self._subscriptions.clear()

    @asynccontextmanager
    async def _hear(
        self, channel: str | None, subscription: BufferedSubscription
    ) -> AsyncIterator[Subscription]:
        subscriptions = self._subscriptions.setdefault(channel, [])
        subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            subscriptions.remove(subscription)
            if not subscriptions:
                self._subscriptions.pop(channel, None)
