"""What the rows of the log's tables mean, the same in every database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from eventstore import chain
from eventstore.documents import BLOCK_BYTES, opened
from eventstore.errors import LogCorrupted
from eventstore.events import PACKED, Block, Head, Record

HEAD_COLUMNS: Final = (
    "name, version, epoch, owner, streams.chain, category, tenant, state, parent, created, attributes, sealed"
)

RECORD_COLUMNS: Final = (
    "r.position, s.name, r.first_version, r.types, r.schema, r.epoch, r.recorded_at, r.digest, r.chain,"
    " p.payload"
)


def head_of(row: Sequence[Any]) -> Head:
    """The head in a row of `HEAD_COLUMNS`."""
    name, version, epoch, owner, chain, category, tenant, state, parent, created, attributes, sealed = row[
        :12
    ]
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
        bool(sealed),
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


_BLOCK_PLACE: Final = "b.first_version, b.last_version, b.first_position, b.last_position, b.chain"
BLOCK_COLUMNS: Final = (
    f"s.name, {_BLOCK_PLACE}, b.data,"
    " COALESCE(b.salt, (SELECT t.salt FROM salts t WHERE t.stream_id = b.stream_id"
    " AND t.from_version <= b.last_version ORDER BY t.from_version DESC LIMIT 1))"
)
"""With the one salt that its digests need: what has another one was erased."""


def block_of(row: Sequence[Any]) -> tuple[Block, bytes | None]:
    """The block in a row of `BLOCK_COLUMNS`, and its salt."""
    return Block(*row[:7]), row[7]


def block_row(block: Block) -> tuple[object, ...]:
    """A block as it stands in a row of `blocks`, behind the stream's id."""
    place = (block.first_version, block.last_version, block.first_position, block.last_position)
    return (*place, block.chain, block.data)


DOCUMENT_COLUMNS: Final = f"d.kind, d.data, b.documents, {_BLOCK_PLACE}, substr(b.data, 1, {BLOCK_BYTES})"
"""With the beginning of the first block of a stream whose documents are packed."""


def beside(kinds: str) -> str:
    """The tables of `DOCUMENT_COLUMNS`, to the right of `streams`; `kinds` says which rows of documents.

    What is packed lies with the block; of a stream that was sealed before that it lies with the others.
    """
    return (
        f"LEFT JOIN documents d ON d.stream_id = streams.id AND {kinds} LEFT JOIN blocks b"
        " ON b.stream_id = streams.id AND b.first_version = 0"
        f" AND (b.documents IS NOT NULL OR d.kind = '{PACKED}')"
    )


def documents_of(stream: str, rows: Sequence[Sequence[Any]]) -> Mapping[str, bytes]:
    """A stream's documents by kind, from rows of `DOCUMENT_COLUMNS`.  Raises `LogCorrupted`."""
    found = (pair for row in rows for pair in ((row[0], row[1]), (PACKED, row[2])))
    kept = {kind: data for kind, data in found if data is not None}
    return opened(kept, next((Block(stream, *row[3:9]) for row in rows if row[3] is not None), None))


def dump_attributes(attributes: Mapping[str, str]) -> str:
    """Attributes as they stand in a row."""
    return orjson.dumps(dict(attributes)).decode()
