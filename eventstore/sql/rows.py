"""What the rows of the log's tables mean, the same in every database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from eventstore import chain
from eventstore.errors import LogCorrupted
from eventstore.events import Head, Record

HEAD_COLUMNS: Final = (
    "name, version, epoch, owner, streams.chain, category, tenant, state, parent, created, attributes"
)

RECORD_COLUMNS: Final = (
    "r.position, s.name, r.first_version, r.types, r.schema, r.epoch, r.recorded_at, r.digest, r.chain,"
    " p.payload"
)


def head_of(row: Sequence[Any]) -> Head:
    """The head in a row of `HEAD_COLUMNS`."""
    name, version, epoch, owner, chain, category, tenant, state, parent, created, attributes = row[:11]
    return Head(
        name,
        version,
        epoch,
        owner,
        chain,
        category,
        tenant,
        state,
        parent,
        created,
        orjson.loads(attributes),
    )


def record_of(row: Sequence[Any]) -> Record:
    """The record in a row of `RECORD_COLUMNS`.  Raises `LogCorrupted`."""
    position, stream, first_version, joined, schema, epoch, recorded_at, digest, link, payload = row
    types = chain.split_types(joined)
    try:
        events = None if payload is None else chain.unframe(payload, len(types))
    except ValueError as error:
        raise LogCorrupted(stream, first_version, str(error)) from error
    return Record(position, stream, first_version, types, schema, epoch, recorded_at, digest, link, events)


def dump_attributes(attributes: Mapping[str, str]) -> str:
    """Attributes as they stand in a row."""
    return orjson.dumps(dict(attributes)).decode()
