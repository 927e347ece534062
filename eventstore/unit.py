"""What makes a unit sound, which appends a head lets through, what they make of it, and where they lie.

Pure, so that every store refuses the same and leaves the same head.
"""

from __future__ import annotations

from dataclasses import replace

from eventstore.chain import join_types
from eventstore.errors import Fenced, StreamNotFound, WrongExpectedVersion
from eventstore.events import ERASED, NO_STREAM, Append, Head, Record, Recorded, Unit


def check_unit(unit: Unit) -> None:
    """Raise ValueError for a unit that no log could record.  Whether it fits this log is not asked here."""
    streams = [append.stream for append in unit.appends]
    if len(set(streams)) < len(streams):
        raise ValueError("a unit appends to each stream at most once: join the events")
    keys = [(claim.scope, claim.key) for claim in unit.claims]
    if len(set(keys)) < len(keys):
        raise ValueError("a unit makes each claim at most once")
    for append in unit.appends:
        _check_append(append)


def _check_append(append: Append) -> None:
    name = append.stream
    if not name:
        raise ValueError("a stream has a name")
    if not append.events:
        raise ValueError(f"the append to {name!r} holds no event")
    types = [event.type for event in append.events]
    join_types(types)
    if append.erase and types != [ERASED]:
        raise ValueError(f"the erasure of {name!r} must be exactly one {ERASED} event, not {types}")
    if not append.erase and any(type_.startswith("$") for type_ in types):
        raise ValueError(f"event types of {name!r} may not begin with '$': those belong to the log")
    if append.new is not None and append.expected != NO_STREAM:
        raise ValueError(f"the append to {name!r} begins a stream but expects version {append.expected}")
    if append.erase and append.expected == NO_STREAM:
        raise ValueError(f"the erasure of {name!r} must name the version that it erases up to")


def check_head(append: Append, head: Head | None) -> None:
    """Raise what this append must be told by this head; return if it may be recorded.

    A creator that comes too late was not fenced: it hears `WrongExpectedVersion`, whatever the epoch.  For
    all others the epoch is looked at first, so that a zombie learns that it is one.
    """
    if head is None:
        if append.expected != NO_STREAM or append.new is None:
            raise StreamNotFound(append.stream)
    elif append.expected == NO_STREAM:
        raise WrongExpectedVersion(append.stream, NO_STREAM, head.version)
    elif append.epoch != head.epoch:
        raise Fenced(append.stream, append.epoch, head.epoch)
    elif append.expected != head.version:
        raise WrongExpectedVersion(append.stream, append.expected, head.version)


def place_of(append: Append, record: Record) -> Recorded | None:
    """Where `append` came to lie, if `record` is what it made: in its place, of its epoch, to the byte."""
    ours = (
        record.first_version == append.expected + 1
        and record.epoch == append.epoch
        and record.types == tuple(event.type for event in append.events)
        and record.payload == tuple(event.data for event in append.events)
    )
    if not ours:
        return None
    place = (record.position, record.first_version, record.last_version, record.recorded_at)
    return Recorded(append.stream, *place)


def next_head(append: Append, head: Head | None, *, chain: bytes, position: int) -> Head:
    """The head after an append that `check_head` let through.

    `chain` and `position` are those of its record.
    """
    version = append.expected + len(append.events)
    if head is not None:
        head = replace(head, version=version, chain=chain)
    else:
        new = append.new
        assert new is not None, "check_head lets no stream begin without its head"
        head = Head(
            stream=append.stream,
            version=version,
            epoch=append.epoch,
            owner=new.owner,
            chain=chain,
            category=new.category,
            tenant=new.tenant,
            state=new.state,
            parent=new.parent,
            created=position,
            attributes=dict(new.attributes),
        )
    change = append.change
    if change is None:
        return head
    return replace(
        head,
        state=head.state if change.state is None else change.state,
        owner=None if change.release else head.owner if change.owner is None else change.owner,
        attributes=head.attributes if change.attributes is None else dict(change.attributes),
    )
