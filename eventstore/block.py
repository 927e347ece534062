"""Sealed records: consecutive records of one stream as one compressed block, and back.

See docs/adr/0017-sealing.md: a file format.  Nothing that follows from the rest is kept: the digest of a
record follows from its bytes and the stream's salt, and its chain from the record before.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, Final

import orjson

from eventstore import chain
from eventstore.errors import LogCorrupted
from eventstore.events import Block, Record

_FORMAT: Final = b"\x01"
_U32: Final = 4
_LEVEL: Final = 9
_RAW: Final = -15  # Deflate with its largest window, without a header and a checksum: the chain is one.
_BYTES_MAX: Final = 1 << 16
"""Payload of a block, roughly: what is read of a stream at once.  A larger record has a block to itself."""
_UNPACKED_MAX: Final = 1 << 30
"""Bytes, more than a database takes as one record: what unpacks to more was never packed here."""
SPAN_MAX: Final = 1 << 14
"""Positions from a block's first record to its last: how far back a reader of the whole log has to look."""


def pack(records: Sequence[Record]) -> Iterator[Block]:
    """All records of a stream, from its beginning, as blocks."""
    previous = chain.genesis(records[0].stream) if records else b""
    start = size = 0
    for index, record in enumerate(records):
        grown = size + sum(map(len, record.payload or ()))
        if index > start and (grown > _BYTES_MAX or record.position - records[start].position >= SPAN_MAX):
            yield _block(records[start:index], previous)
            previous, start, grown = records[index - 1].chain, index, grown - size
        size = grown
    if records:
        yield _block(records[start:], previous)


def _block(records: Sequence[Record], previous: bytes) -> Block:
    first, last = records[0], records[-1]
    payloads = [None if record.payload is None else chain.frame(record.payload) for record in records]
    header = _header(records, [-1 if payload is None else len(payload) for payload in payloads])
    digests = [record.digest for record in records if record.payload is None]
    body = [len(header).to_bytes(_U32, "big"), header, *digests, *(payload or b"" for payload in payloads)]
    packer = zlib.compressobj(_LEVEL, wbits=_RAW)
    data = _FORMAT + previous + packer.compress(b"".join(body)) + packer.flush()
    place = (first.first_version, last.last_version, first.position, last.position)
    return Block(first.stream, *place, last.chain, data)


def _header(records: Sequence[Record], sizes: Sequence[int]) -> bytes:
    """The one spelling of what a block says beside digests and payloads."""
    joined = [chain.join_types(record.types) for record in records]
    vocabulary = list(dict.fromkeys(joined))
    return orjson.dumps(
        [
            [records[0].recorded_at, *(b.recorded_at - a.recorded_at for a, b in pairwise(records))],
            [b.position - a.position for a, b in pairwise(records)],
            vocabulary,
            [vocabulary.index(types) for types in joined],
            _runs([record.schema for record in records]),
            _runs([record.epoch for record in records]),
            sizes,
        ]
    )


def _runs(numbers: Sequence[int]) -> list[int] | int:
    """One number where all are the same, as nearly always."""
    return numbers[0] if len(set(numbers)) == 1 else list(numbers)


def unpack(block: Block, salt: bytes | None) -> list[Record]:
    """The records of a block, as they were before; `salt` is the newest one of its records, None once erased.

    Raises `LogCorrupted` unless they lead to the block's chain and are all that it holds.
    """
    try:
        records = _records(block, salt)
    except (ValueError, TypeError, IndexError, zlib.error, OverflowError) as error:
        raise LogCorrupted(block.stream, block.first_version, f"its block cannot be read: {error}") from error
    last = records[-1]
    if (last.chain, last.last_version, last.position) != (
        block.chain,
        block.last_version,
        block.last_position,
    ):
        raise LogCorrupted(block.stream, block.first_version, "its block is not what was sealed")
    return records


def _records(block: Block, salt: bytes | None) -> list[Record]:
    begin, end = len(_FORMAT), len(_FORMAT) + chain.DIGEST_BYTES
    if block.data[:begin] != _FORMAT:
        raise ValueError("it has an unknown format")
    previous, body = block.data[begin:end], _inflated(block.data[end:])
    at = _U32 + int.from_bytes(body[:_U32], "big")
    header = body[_U32:at]
    times, steps, vocabulary, kinds, schemas, epochs, sizes = orjson.loads(header)
    payloads_at = at + chain.DIGEST_BYTES * sizes.count(-1)
    first, records = block.first_version, []
    for recorded_at, position, kind, schema, epoch, size in zip(
        accumulate(times),
        accumulate(steps, initial=block.first_position),
        kinds,
        _spread(schemas, len(kinds)),
        _spread(epochs, len(kinds)),
        sizes,
        strict=True,
    ):
        types = chain.split_types(vocabulary[kind])
        if size < 0:
            digest, payload = body[at : at + chain.DIGEST_BYTES], None
            at += chain.DIGEST_BYTES
        else:
            if salt is None:
                raise ValueError("the salt of its digests is missing")
            framed = body[payloads_at : payloads_at + size]
            payloads_at += size
            digest, payload = chain.digest(salt, first, framed), chain.unframe(framed, len(types))
        previous = chain.link(
            previous,
            stream=block.stream,
            first_version=first,
            types=types,
            schema=schema,
            epoch=epoch,
            recorded_at=recorded_at,
            digest=digest,
        )
        place = (position, block.stream, first, types, schema, epoch, recorded_at)
        records.append(Record(*place, digest, previous, payload))
        first += len(types)
    # No chain covers what else could stand there.
    if payloads_at != len(body) or header != _header(records, sizes):
        raise ValueError("it holds more than its records")
    return records


def _inflated(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=_RAW)
    body = unpacker.decompress(data, _UNPACKED_MAX)
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("its data do not end where they should")
    return body


def _spread(numbers: Any, count: int) -> Sequence[int]:
    return [numbers] * count if isinstance(numbers, int) else numbers


def bare(block: Block, salt: bytes | None) -> Block:
    """The block without its events' bytes: what is left of it once it was erased.

    Of one that cannot be read nothing is: who was promised that words go must not hear that they stay.
    """
    try:
        records = [replace(record, payload=None) for record in unpack(block, salt)]
    except LogCorrupted:
        return replace(block, data=b"")
    return _block(records, block.data[len(_FORMAT) :][: chain.DIGEST_BYTES])
