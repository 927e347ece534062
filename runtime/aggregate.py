"""Aggregates that no host runs, such as projects: each is a stream, and a command to it is done at once.

One kind of aggregate is one `Aggregate`: its events' codec and its pure functions.  `runtime.aggregates`
lists them; any host carries their commands out (`actors.aggregate_writer`), and anybody may read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import orjson

from eventstore.events import ERASED, NO_STREAM, Append, Document, HeadChange, NewStream
from eventstore.ports import LogReader
from runtime.event_codec import SCHEMA, EventCodec

S = TypeVar("S")
E = TypeVar("E")

SNAPSHOT = "state"
"""Kind of the document that holds a state."""

EPOCH = 1
"""Of every stream that nobody owns: its versions alone decide who comes first."""


class Refused(Exception):
    """Base of what a command can be refused for.  Arguments are kept whole so that they survive pickling."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a stream can be found and listed by without reading it: the changing part of its head."""

    tenant: str
    """The project that it belongs to."""
    state: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshots(Generic[S]):
    """How a state is kept beside its stream, so that a long one need not be read from its start."""

    shape: int
    """Version of what `dump` gives; what was kept in another shape is not used."""
    dump: Callable[[S], Any]
    """The state as JSON."""
    load: Callable[[Any], S]
    every: int
    """Events after which the state is kept anew."""
    bytes_max: int = 16 << 20
    """A longer one is not kept: it would weigh on every unit that it comes with."""


@dataclass(frozen=True, slots=True)
class Aggregate(Generic[S, E]):
    """One kind of aggregate, with states `S` and events `E`."""

    category: str
    """Of its streams' heads."""
    codec: EventCodec[E]
    initial: S
    """The state of a stream without events."""
    decide: Callable[[Any, S], Sequence[E]]
    """The events that follow from a command; none where it changes nothing, as when it is repeated, for a
    command may arrive twice.  Raises a `Refused`.  Time and ids come in with the command."""
    evolve: Callable[[S, E], S]
    """The state after an event.  Refuses nothing: it happened."""
    label: Callable[[S], Label]
    snapshots: Snapshots[S] | None = None

    def fold(self, events: Sequence[E], state: S) -> S:
        """The state after the events."""
        for event in events:
            state = self.evolve(state, event)
        return state

    async def read(
        self, reader: LogReader, stream: str, state: S | None = None, version: int = NO_STREAM
    ) -> tuple[S, int]:
        """The state of a stream and its version, going on from those given.

        An unknown stream gives `(initial, NO_STREAM)`.  Raises `UnknownEvent` and `StoreUnavailable`.
        """
        folded = self.initial if state is None else state
        if state is None and self.snapshots is not None:
            folded, version = await self._kept(self.snapshots, reader, stream)
        async for record in reader.read(stream, after=version):
            folded = self.fold(self.codec.decode(record), folded)
            version = record.last_version
        return folded, version

    async def _kept(self, snapshots: Snapshots[S], reader: LogReader, stream: str) -> tuple[S, int]:
        data = await reader.document(stream, SNAPSHOT)
        kept = orjson.loads(data) if data is not None else {}
        if kept.get("shape") != snapshots.shape:
            return self.initial, NO_STREAM
        return snapshots.load(kept["state"]), kept["version"]

    def documents(self, append: Append, state: S) -> list[Document]:
        """What is kept beside the stream with an `append` after which the state is `state`."""
        snapshots, before = self.snapshots, append.expected + 1
        after = before + len(append.events)
        if snapshots is None or append.erase or after // snapshots.every == before // snapshots.every:
            return []
        kept = {"shape": snapshots.shape, "version": after - 1, "state": snapshots.dump(state)}
        data = orjson.dumps(kept)
        return [Document(append.stream, SNAPSHOT, data)] if len(data) <= snapshots.bytes_max else []

    def append(self, stream: str, version: int, state: S, events: Sequence[E]) -> Append:
        """Records `events` behind `version`, after which the state is `state`; for any unit.

        An event whose stored name is `ERASED` stands alone and erases what was recorded before it.
        """
        label = self.label(state)
        encoded = [self.codec.encode(event) for event in events]
        return Append(
            stream,
            version,
            EPOCH,
            encoded,
            schema=SCHEMA,
            new=NewStream(self.category, label.tenant, label.state, attributes=label.attributes)
            if version == NO_STREAM
            else None,
            change=HeadChange(state=label.state, attributes=label.attributes),
            erase=encoded[0].type == ERASED,
        )
