"""Sealed records: consecutive records of one stream as one compressed block, and back.

See docs/adr/0017-sealing.md: a file format.  Nothing that follows from the rest is kept: the digest of a
record follows from its bytes and the stream's salt, and its chain from the record before.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, islice, pairwise
from typing import Any, Final

import orjson

from eventstore import chain
from eventstore.dictionary import DICTIONARY
from eventstore.errors import LogCorrupted, UnknownFormat
from eventstore.events import Block, Record
from eventstore.texts import STRINGS_MAX, apart, together

_FORMAT: Final = b"\x02"
_FIRST_FORMAT: Final = b"\x01"
"""Without a dictionary, payloads as they are, the chain before a stream's first record too.  Only read."""
_U32: Final = 4
_LEVEL: Final = 9
_RAW: Final = -15  # Deflate with its largest window, without a header and a checksum: the chain is one.
_BYTES_MAX: Final = 1 << 16
"""Payload of a block, roughly: what is read of a stream at once.  A larger record has a block to itself."""
_FIELDS: Final = 6
"""What both formats say of all records."""
_Content = bytes | tuple[bytes, ...]
"""Of a record: its digest where it was erased, else its events."""
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
    packer = zlib.compressobj(_LEVEL, wbits=_RAW, zdict=DICTIONARY)
    before = previous if first.first_version else b""
    data = _FORMAT + before + packer.compress(_body(records)) + packer.flush()
    place = (first.first_version, last.last_version, first.position, last.position)
    return Block(first.stream, *place, last.chain, data)


def _body(records: Sequence[Record]) -> bytes:
    """What a block packs."""
    left, strings = apart([event for record in records for event in record.payload or ()])
    width = _width(strings)
    erased = _runs([int(record.payload is None) for record in records])
    header = orjson.dumps([*_fields(records), erased, len(left), len(strings)])
    digests = [record.digest for record in records if record.payload is None]
    lengths = [len(string).to_bytes(width, "big") for string in strings]
    parts = (len(header).to_bytes(_U32, "big"), header, *digests, left, bytes([width]), *lengths, *strings)
    return b"".join(parts)


def _width(strings: Sequence[bytes]) -> int:
    """The bytes that the length of any of them needs."""
    return max((len(string) for string in strings), default=0).bit_length() // 8 + 1


def _fields(records: Sequence[Record]) -> list[Any]:
    """What a block says of its records beside digests and payloads."""
    joined = [chain.join_types(record.types) for record in records]
    vocabulary = list(dict.fromkeys(joined))
    return [
        [records[0].recorded_at, *(b.recorded_at - a.recorded_at for a, b in pairwise(records))],
        [b.position - a.position for a, b in pairwise(records)],
        vocabulary,
        [vocabulary.index(types) for types in joined],
        _runs([record.schema for record in records]),
        _runs([record.epoch for record in records]),
    ]


def _runs(numbers: Sequence[int]) -> list[int] | int:
    """One number where all are the same, as nearly always."""
    return numbers[0] if len(set(numbers)) == 1 else list(numbers)


def unpack(block: Block, salt: bytes | None) -> list[Record]:
    """The records of a block, as they were before; `salt` is the newest one of its records, None once erased.

    Raises `LogCorrupted` unless they lead to the block's chain and are all that it holds, `UnknownFormat`
    where a later version wrote it.
    """
    try:
        records = _records(block, salt)
    except UnknownFormat:
        raise
    except Exception as error:  # Whatever bytes that nobody has checked yet lead to.
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
    previous, packed, dictionary = _parts(block)
    body = _inflated(packed, dictionary)
    at = _U32 + int.from_bytes(body[:_U32], "big")
    header = orjson.loads(body[_U32:at])
    (times, steps, vocabulary, kinds, schemas, epochs), rest = header[:_FIELDS], header[_FIELDS:]
    counts = [len(chain.split_types(vocabulary[kind])) for kind in kinds]
    read = _first_contents if block.data[: len(_FORMAT)] == _FIRST_FORMAT else _contents
    first, records = block.first_version, []
    for recorded_at, position, kind, schema, epoch, content in zip(
        accumulate(times),
        accumulate(steps, initial=block.first_position),
        kinds,
        _spread(schemas, len(kinds)),
        _spread(epochs, len(kinds)),
        read(body[at:], counts, *rest),
        strict=True,
    ):
        types = chain.split_types(vocabulary[kind])
        if isinstance(content, bytes):
            digest, payload = content, None
        else:
            if salt is None:
                raise ValueError("the salt of its digests is missing")
            digest, payload = chain.digest(salt, first, chain.frame(content)), content
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
    if orjson.dumps([*_fields(records), *rest]) != body[_U32:at]:
        raise ValueError("it holds more than its records")
    return records


def _contents(body: bytes, counts: Sequence[int], erased: Any, size: int, strings: int) -> Sequence[_Content]:
    """What each record holds, all that follows a block's header; `counts` are those of their events."""
    bare = _spread(erased, len(counts))
    at = chain.DIGEST_BYTES * sum(bare)
    digests = (body[place : place + chain.DIGEST_BYTES] for place in range(0, at, chain.DIGEST_BYTES))
    left, width = body[at : at + size], body[at + size]
    at += size + 1
    if strings > (STRINGS_MAX if size else sum(counts)):
        raise ValueError("it holds more strings than are taken apart")
    if strings * width > len(body) - at:
        raise ValueError("it ends within the lengths of its strings")
    lengths = (
        int.from_bytes(body[place : place + width], "big") for place in range(at, at + strings * width, width)
    )
    ends = list(accumulate(lengths, initial=at + strings * width))
    taken = [body[begin:end] for begin, end in pairwise(ends)]
    events = together(left, taken)
    held = (count for count, gone in zip(counts, bare, strict=True) if not gone)
    said = [_runs([int(bool(gone)) for gone in bare]), len(left), len(taken)]
    # Spelled out, as to Python true and 1.0 are 1.
    if orjson.dumps(said) != orjson.dumps([erased, size, strings]):
        raise ValueError("what it says of its records is not so")
    if (ends[-1], width) != (len(body), _width(taken)) or sum(held) != len(events):
        raise ValueError("it holds more than its records")
    of_records = iter(events)
    return [
        next(digests) if gone else tuple(islice(of_records, count))
        for count, gone in zip(counts, bare, strict=True)
    ]


def _first_contents(body: bytes, counts: Sequence[int], sizes: Sequence[int]) -> Sequence[_Content]:
    """The same of the first format."""
    digests_at, at = 0, chain.DIGEST_BYTES * sizes.count(-1)
    contents: list[_Content] = []
    for count, size in zip(counts, sizes, strict=True):
        if size < 0:
            contents.append(body[digests_at : digests_at + chain.DIGEST_BYTES])
            digests_at += chain.DIGEST_BYTES
        else:
            contents.append(chain.unframe(body[at : at + size], count))
            at += size
    if at != len(body):
        raise ValueError("it holds more than its records")
    return contents


def _parts(block: Block) -> tuple[bytes, bytes, bytes]:
    """The chain before a block, what it packs, and with which dictionary."""
    format, data = block.data[: len(_FORMAT)], block.data[len(_FORMAT) :]
    if format == _FIRST_FORMAT:
        return data[: chain.DIGEST_BYTES], data[chain.DIGEST_BYTES :], b""
    if format > _FORMAT:
        raise UnknownFormat(block.stream)
    if format != _FORMAT:
        raise ValueError("it has no format")
    if block.first_version == 0:
        return chain.genesis(block.stream), data, DICTIONARY
    return data[: chain.DIGEST_BYTES], data[chain.DIGEST_BYTES :], DICTIONARY


def beginning(block: Block, size: int) -> bytes:
    """Up to so many bytes of what a block packs, unproven: text that is like the block's.

    Raises `LogCorrupted` where it cannot be unpacked, `UnknownFormat`.
    """
    try:
        _, packed, dictionary = _parts(block)
        return zlib.decompressobj(wbits=_RAW, zdict=dictionary).decompress(packed, size)
    except (ValueError, zlib.error) as error:
        raise LogCorrupted(block.stream, block.first_version, f"its block cannot be read: {error}") from error


def _inflated(data: bytes, dictionary: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=_RAW, zdict=dictionary)
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
    except (LogCorrupted, UnknownFormat):
        return replace(block, data=b"")
    return _block(records, _parts(block)[0])
