"""What makes a unit sound, which appends a head lets through, what they make of it, and where they lie.

Pure, so that every store refuses the same and leaves the same head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from eventstore.chain import join_types
from eventstore.errors import Fenced, LogCorrupted, StreamNotFound, WrongExpectedVersion
from eventstore.events import (
    ERASED,
    NO_STREAM,
    SEALED,
    SEALS,
    Append,
    Head,
    HeadChange,
    Record,
    Recorded,
    Seal,
    Unit,
)

NAME_BYTES_MAX: Final = 512
"""Several of them have to fit into one entry of any database's index."""
_UNCHANGED: Final = HeadChange()


def check_unit(unit: Unit) -> None:
    """Raise ValueError for a unit that no log could record.  Whether it fits this log is not asked here."""
    streams = [append.stream for append in unit.appends]
    if len(set(streams)) < len(streams):
        raise ValueError("a unit appends to each stream at most once: join the events")
    keys = [(claim.scope, claim.key) for claim in unit.claims]
    if len(set(keys)) < len(keys):
        raise ValueError("a unit makes each claim at most once")
    for append in unit.appends:
        _check_append(append, seals=bool(unit.seals))
    if unit.seals and streams != [SEALS]:
        raise ValueError(f"seals go with one append, to {SEALS!r}, which says by whom and why")
    for claim in unit.claims:
        _check_texts(claim.scope, claim.key, claim.stream)
    for document in unit.documents:
        _check_texts(document.stream, document.kind)
        if document.kind.startswith("$") and not unit.seals:
            raise ValueError(f"no document may be of kind {document.kind!r}: '$' belongs to the log")


def _check_append(append: Append, *, seals: bool) -> None:
    name = append.stream
    if not name:
        raise ValueError("a stream has a name")
    if not append.events:
        raise ValueError(f"the append to {name!r} holds no event")
    types = [event.type for event in append.events]
    join_types(types)
    if append.erase and types != [ERASED]:
        raise ValueError(f"the erasure of {name!r} must be exactly one {ERASED} event, not {types}")
    if seals and types != [SEALED]:
        raise ValueError(f"what goes with seals must be exactly one {SEALED} event, not {types}")
    if not append.erase and not seals and any(type_.startswith("$") for type_ in types):
        raise ValueError(f"event types of {name!r} may not begin with '$': those belong to the log")
    if append.new is not None and append.expected != NO_STREAM:
        raise ValueError(f"the append to {name!r} begins a stream but expects version {append.expected}")
    if append.erase and append.expected == NO_STREAM:
        raise ValueError(f"the erasure of {name!r} must name the version that it erases up to")
    _check_texts(name)
    if (new := append.new) is not None:
        _check_texts(new.category, new.tenant, new.state, new.owner, new.parent)
        _check_attributes(new.attributes)
    if (change := append.change) is not None:
        _check_texts(change.state, change.owner)
        _check_attributes(change.attributes or {})


def storable(text: str) -> bool:
    """Whether every database can hold this text: no NUL, no half of a character."""
    return "\0" not in text and (text.isascii() or text == text.encode(errors="replace").decode())


def _check_texts(*texts: str | None) -> None:
    for text in texts:
        if text is not None and not storable(text):
            raise ValueError(f"{text!r} holds a NUL or half of a character: no stream or key is named so")
        if text is not None and len(text.encode()) > NAME_BYTES_MAX:
            raise ValueError(
                f"no stream or key has a name of more than {NAME_BYTES_MAX} bytes: {text[:40]!r} ..."
            )


def _check_attributes(attributes: Mapping[str, str]) -> None:
    # Attributes are kept as JSON, which can spell a NUL.
    for name, value in attributes.items():
        if not storable((name + value).replace("\0", "")):
            raise ValueError(f"attribute {name!r} holds half of a character")


def check_head(append: Append, head: Head | None) -> None:
    """Raise what this append must be told by this head; return if it may be recorded.

    A creator that comes too late was not fenced: it hears `WrongExpectedVersion`, whatever the epoch.  For
    all others the epoch is looked at first, so that a zombie learns that it is one.  A sealed stream takes an
    erasure and nothing else.
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
    elif head.sealed and not append.erase:
        raise Fenced(append.stream, append.epoch, head.epoch)


def check_documents(unit: Unit, head_of: Callable[[str], Head | None]) -> None:
    """Raise what the unit's documents must be told by the heads; return if they may be kept.

    What lies beside a sealed stream changes with an erasure only, like the stream.
    """
    appended = {append.stream for append in unit.appends}
    for document in unit.documents:
        if document.stream in appended:
            continue
        head = head_of(document.stream)
        if head is None:
            raise StreamNotFound(document.stream)
        if head.sealed:
            raise Fenced(document.stream, head.epoch, head.epoch)


def check_seal(seal: Seal, head: Head | None) -> None:
    """Raise what this seal must be told by this head; return if its blocks hold all that the head names."""
    if head is None:
        raise StreamNotFound(seal.stream)
    if seal.epoch != head.epoch:
        raise Fenced(seal.stream, seal.epoch, head.epoch)
    if seal.version != head.version:
        raise WrongExpectedVersion(seal.stream, seal.version, head.version)
    follows = [0, *(block.last_version + 1 for block in seal.blocks)]
    if [*(block.first_version for block in seal.blocks), head.version + 1] != follows:
        raise LogCorrupted(seal.stream, 0, "its blocks do not hold each version once")
    if seal.blocks[-1].chain != head.chain:
        raise LogCorrupted(seal.stream, seal.version, "its blocks do not lead to the head's chain")


def sealed_head(head: Head) -> Head:
    """The head after a seal that `check_seal` let through."""
    return replace(head, epoch=head.epoch + 1, sealed=True)


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
    begun, change = head or _begun(append, position), append.change or _UNCHANGED
    # Written out: `replace` takes five times as long, and every commit comes by here.
    return Head(
        stream=begun.stream,
        version=version,
        epoch=begun.epoch,
        owner=None if change.release else begun.owner if change.owner is None else change.owner,
        chain=chain,
        category=begun.category,
        tenant=begun.tenant,
        state=begun.state if change.state is None else change.state,
        parent=begun.parent,
        created=begun.created,
        attributes=begun.attributes if change.attributes is None else dict(change.attributes),
        sealed=begun.sealed,
    )


def _begun(append: Append, position: int) -> Head:
    """The head that a stream begins with, before anything of the append is in it."""
    new = append.new
    assert new is not None, "check_head lets no stream begin without its head"
    return Head(
        stream=append.stream,
        version=NO_STREAM,
        epoch=append.epoch,
        owner=new.owner,
        chain=b"",
        category=new.category,
        tenant=new.tenant,
        state=new.state,
        parent=new.parent,
        created=position,
        attributes=dict(new.attributes),
    )
