"""A record on its way into the log: what is computed of it before any database is asked."""

from __future__ import annotations

from dataclasses import dataclass

from eventstore import chain
from eventstore.events import Append, Head


@dataclass(slots=True)
class Stream:
    """A stream as a writer knows it."""

    id: int
    head: Head
    salt: bytes
    """Empty where it was read of a sealed one: it lies in the blocks, and an erasure brings another one."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The columns of a record that bind it to all before it."""

    types: str
    payload: bytes
    digest: bytes
    chain: bytes


def bind(append: Append, head: Head | None, salt: bytes, recorded_at: int) -> Bound:
    """The record of an append that follows `head`, or begins its stream; `salt` is the stream's."""
    first = append.expected + 1
    types = [event.type for event in append.events]
    payload = chain.frame([event.data for event in append.events])
    digest = chain.digest(salt, first, payload)
    link = chain.link(
        head.chain if head else chain.genesis(append.stream),
        stream=append.stream,
        first_version=first,
        types=types,
        schema=append.schema,
        epoch=append.epoch,
        recorded_at=recorded_at,
        digest=digest,
    )
    return Bound(chain.join_types(types), payload, digest, link)
