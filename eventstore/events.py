"""What the log holds: events before and after they are recorded, records, heads and units.

See docs/adr/0001-log-format.md: these shapes are a file format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

NO_STREAM: Final = -1
"""The expected version of a stream that does not exist yet; also "from the beginning" as `after`."""

ERASED: Final = "$erased"
"""The one event type the log itself knows: the tombstone that names who erased a stream, when and why.

Types that begin with `$` belong to the log; its users choose others.
"""

SEALED: Final = "$sealed"
"""The type of the event that names which streams were sealed, by whom and why; see `eventstore.sealing`."""

SEALS: Final = "$seals"
"""The log's own stream of `SEALED` events."""

PACKED: Final = "$"
"""The kind under which all documents of a sealed stream lie as one; see `eventstore.documents`."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A fact, before it is recorded."""

    type: str
    """A stable name from an explicit table, never a class name.  No comma, no control characters."""
    data: bytes
    """The exact bytes; the log never looks inside."""


@dataclass(frozen=True, slots=True)
class Record:
    """One commit's batch of one stream's events, as the log keeps it.  Never changes once recorded."""

    position: int
    """Place in the log: 1, 2, 3 ... without gaps, over all streams."""
    stream: str
    first_version: int
    """Version of the first event; the others follow without gaps."""
    types: tuple[str, ...]
    schema: int
    """Version of the vocabulary that wrote this batch."""
    epoch: int
    recorded_at: int
    """Wall clock, milliseconds since 1970 UTC.  For people; never used for order."""
    digest: bytes
    chain: bytes
    payload: tuple[bytes, ...] | None
    """The events' bytes, or None once they were erased."""

    @property
    def count(self) -> int:
        """How many events."""
        return len(self.types)

    @property
    def last_version(self) -> int:
        """Version of the last event."""
        return self.first_version + len(self.types) - 1


@dataclass(frozen=True, slots=True)
class Head:
    """Where a stream stands: its last version, who may write it, and what it may be found by."""

    stream: str
    version: int
    epoch: int
    """Counts activations.  An append names it; a lower one is fenced."""
    owner: str | None
    """The holder of a lease that runs this stream, or None."""
    chain: bytes
    category: str
    """What kind of thing the stream is (`response`, ...)."""
    tenant: str
    state: str
    """The users' own word for the state, for finding streams by it."""
    parent: str | None
    """The stream this one continues; chains of parents are read by `lineage`."""
    created: int
    """Position of the first record."""
    attributes: Mapping[str, str]
    """Small labels, for the users."""
    sealed: bool = False
    """Whether its records up to the seal lie in blocks; only an erasure is appended to it any more."""


@dataclass(frozen=True, slots=True)
class HeadChange:
    """What an append changes of the head besides its version.  None leaves a field as it is."""

    state: str | None = None
    owner: str | None = None
    release: bool = False
    """Set `owner` to nobody."""
    attributes: Mapping[str, str] | None = None
    """Replaces all of them."""


@dataclass(frozen=True, slots=True)
class NewStream:
    """What the head of a new stream starts with; goes with an append whose `expected` is `NO_STREAM`."""

    category: str
    tenant: str
    state: str
    owner: str | None = None
    parent: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Append:
    """One stream's part of a unit."""

    stream: str
    expected: int
    """Version of the stream's last event, or `NO_STREAM`."""
    epoch: int
    """The writer's epoch; a new stream starts at the epoch named here (1)."""
    events: Sequence[NewEvent]
    schema: int = 1
    new: NewStream | None = None
    change: HeadChange | None = None
    erase: bool = False
    """Erase earlier payloads, salts and documents; `events` is then exactly one `ERASED` tombstone."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A key that only one unit may take within its scope, for instance an idempotency key."""

    scope: str
    key: str
    fingerprint: bytes
    stream: str
    """What the claim leads to."""
    expires_at: int | None = None
    """Milliseconds since 1970 UTC; an expired claim may be taken anew."""


@dataclass(frozen=True, slots=True)
class Document:
    """Bytes kept beside a stream, derivable or deletable: a snapshot, sealed secrets.

    A later document of the same stream and kind replaces the earlier one; empty `data` deletes it.  Kinds
    that begin with `$` belong to the log.
    """

    stream: str
    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive records of one stream, compressed.  `eventstore.block` reads and writes them."""

    stream: str
    first_version: int
    last_version: int
    first_position: int
    last_position: int
    chain: bytes
    """That of its last record: what the block holds must lead to it."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Seal:
    """Blocks that take the place of all records of a stream."""

    stream: str
    version: int
    """Of the stream's last event."""
    epoch: int
    """The stream's; sealing raises it, so that who read the stream before does not write to it."""
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Unit:
    """What is committed together or not at all."""

    appends: Sequence[Append]
    claims: Sequence[Claim] = ()
    documents: Sequence[Document] = ()
    seals: Sequence[Seal] = ()
    """Go with one append, of a `SEALED` event, and with the documents of what is sealed, packed."""

    @property
    def streams(self) -> list[str]:
        """The streams that it touches, some of them more than once."""
        parts: tuple[Append | Document | Seal, ...] = (*self.appends, *self.documents, *self.seals)
        return [part.stream for part in parts]


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where one append of a committed unit came to lie."""

    stream: str
    position: int
    first_version: int
    last_version: int
    recorded_at: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit of a stream showed: dense numbered frames, for followers.

    Numbers count frames 0, 1, 2 ... per channel; they are not versions.
    """

    channel: str
    """The stream's name."""
    first: int
    """Number of the first frame."""
    count: int
    """How many frames; 0 is possible (a commit that shows nothing)."""
    frames: tuple[bytes, ...] | None
    """The ready bytes, or None where they were too large for the bus: read the log."""
    version: int
    """Version of the last event behind these frames."""
    position: int
    """Position of the record behind these frames."""
    tenant: str = ""
    last: bool = False
    """Nothing follows these frames, ever."""
    transient: bool = False
    """The stream will be erased soon: subscribers must not keep what they see."""

    @property
    def end(self) -> int:
        """Number of the last frame (`first - 1` where there is none)."""
        return self.first + self.count - 1
