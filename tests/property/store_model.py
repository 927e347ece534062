"""What a store must be, in dictionaries; and what writers may want of it, right or wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from eventstore.errors import ClaimTaken, EventStoreError, Fenced, StreamNotFound, WrongExpectedVersion
from eventstore.events import (
    ERASED,
    NO_STREAM,
    Append,
    Claim,
    Document,
    HeadChange,
    NewEvent,
    NewStream,
    Recorded,
    Unit,
)
from tests.contract.store_contract import Clock

STREAMS = ("a", "b", "c", "d")
HOLDERS = ("h1", "h2")
KINDS = ("snap", "seal")

streams = st.sampled_from(STREAMS)
holders = st.sampled_from(HOLDERS)
kinds = st.sampled_from(KINDS)
data = st.binary(max_size=6)
slips = st.sampled_from([0] * 8 + [-1, 1, 2])
"""How far a writer is from the truth: mostly not at all."""


@dataclass
class ModelStream:
    """What a stream must be."""

    version: int
    epoch: int
    owner: str | None
    state: str
    parent: str | None
    created: int
    events: list[tuple[str, bytes | None]] = field(default_factory=list)
    documents: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a writer wants of one stream, before it is known where the stream stands."""

    stream: str
    datas: tuple[bytes, ...]
    version_slip: int
    epoch_slip: int
    create: bool
    erase: bool
    state: str | None
    owner: str | None
    release: bool
    parent: str | None
    document: tuple[str, bytes] | None
    claim: tuple[str, int | None] | None


plans = st.builds(
    Plan,
    stream=streams,
    datas=st.lists(data, min_size=1, max_size=3).map(tuple),
    version_slip=slips,
    epoch_slip=slips,
    create=st.booleans(),
    erase=st.sampled_from([False] * 4 + [True]),
    state=st.sampled_from([None, "open", "done"]),
    owner=st.none() | holders,
    release=st.sampled_from([False] * 4 + [True]),
    parent=st.none() | streams,
    document=st.none() | st.tuples(kinds, st.just(b"") | data),
    claim=st.none() | st.tuples(st.sampled_from("kl"), st.none() | st.integers(1, 5)),
)


class Model:
    """The truth, and what it says to a unit."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.streams: dict[str, ModelStream] = {}
        self.log: list[tuple[str, int, int]] = []
        """(stream, first version, count) by position."""
        self.claims: dict[tuple[str, str], Claim] = {}
        self.cursors: dict[str, int] = {}
        self.leases: dict[str, float] = {}
        self.buried: set[str] = set()

    def unit(self, wanted: list[Plan]) -> Unit:
        appends = [self._append(plan) for plan in wanted]
        claims = [
            Claim("s", key, plan.stream.encode(), plan.stream, ttl and self.clock.ms + ttl * 1000)
            for plan in wanted
            if plan.claim is not None
            for key, ttl in [plan.claim]
        ]
        documents = [Document(plan.stream, *plan.document) for plan in wanted if plan.document is not None]
        return Unit(appends, claims, documents)

    def _append(self, plan: Plan) -> Append:
        found = self.streams.get(plan.stream)
        version = found.version if found else NO_STREAM
        events = [NewEvent("said", item) for item in plan.datas]
        if found is None or (plan.create and plan.version_slip):
            new = NewStream("c", "p", plan.state or "new", plan.owner, plan.parent) if plan.create else None
            return Append(plan.stream, NO_STREAM, 1 + plan.epoch_slip % 3, events, new=new)
        change = HeadChange(plan.state, plan.owner, plan.release)
        expected = max(0, version + plan.version_slip)
        epoch = max(0, found.epoch + plan.epoch_slip)
        if plan.erase:
            events = [NewEvent(ERASED, plan.datas[0])]
        return Append(plan.stream, expected, epoch, events, change=change, erase=plan.erase)

    def refusals(self, unit: Unit) -> set[type[EventStoreError]]:
        """The errors that the unit may be answered with; empty if it must be recorded."""
        found: set[type[EventStoreError]] = set()
        for append in unit.appends:
            stream = self.streams.get(append.stream)
            if stream is None:
                if append.new is None:
                    found.add(StreamNotFound)
            elif append.expected == NO_STREAM:
                found.add(WrongExpectedVersion)
            elif append.epoch != stream.epoch:
                found.add(Fenced)
            elif append.expected != stream.version:
                found.add(WrongExpectedVersion)
        if any(self.claim(claim.scope, claim.key) for claim in unit.claims):
            found.add(ClaimTaken)
        return found

    def claim(self, scope: str, key: str) -> Claim | None:
        claim = self.claims.get((scope, key))
        expired = claim is not None and claim.expires_at is not None and claim.expires_at <= self.clock.ms
        return None if expired else claim

    def record(self, unit: Unit, recorded: list[Recorded]) -> None:
        for append, place in zip(unit.appends, recorded, strict=True):
            first = append.expected + 1
            self.log.append((append.stream, first, len(append.events)))
            assert (place.stream, place.position) == (append.stream, len(self.log))
            assert (place.first_version, place.last_version) == (first, append.expected + len(append.events))
            if append.new is not None:
                new = append.new
                self.streams[append.stream] = ModelStream(
                    -1, append.epoch, new.owner, new.state, new.parent, place.position
                )
            stream = self.streams[append.stream]
            if append.erase:
                stream.events = [(name, None) for name, _ in stream.events]
                stream.documents.clear()
            stream.events += [(event.type, event.data) for event in append.events]
            stream.version = place.last_version
            if append.change is not None:
                stream.state = append.change.state or stream.state
                stream.owner = None if append.change.release else append.change.owner or stream.owner
        for claim in unit.claims:
            self.claims[claim.scope, claim.key] = claim
        for document in unit.documents:
            documents = self.streams[document.stream].documents
            documents.pop(document.kind, None)
            if document.data:
                documents[document.kind] = document.data
