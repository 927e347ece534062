"""The documents of a sealed stream as one: they repeat each other, and much of the stream's first block.

See docs/adr/0017-sealing.md: a file format.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Final

import orjson

from eventstore.block import beginning
from eventstore.dictionary import DICTIONARY
from eventstore.errors import LogCorrupted, UnknownFormat
from eventstore.events import PACKED, Block

_FORMAT: Final = b"\x01"
_U32: Final = 4
_LEVEL: Final = 9
_BLOCK_MAX: Final = 28_000
"""Bytes of the block that are looked at: with the dictionary before them they stay in reach."""
_UNPACKED_MAX: Final = 1 << 30
"""Bytes, more than a database takes as one document."""
PACKED_TOGETHER_MAX: Final = 1 << 18
"""Bytes of a stream's documents: whoever reads one of them unpacks all, in a millisecond of an event loop."""
BLOCK_BYTES: Final = 1 << 16
"""Of the block's data: they unpack to more than is looked at, whatever it packs."""


def pack_documents(documents: Mapping[str, bytes], block: Block) -> bytes:
    """Documents by kind, beside the stream's first block."""
    header = _header(documents)
    body = [len(header).to_bytes(_U32, "big"), header, *(documents[kind] for kind in sorted(documents))]
    packer = zlib.compressobj(_LEVEL, zdict=_dictionary(block))
    return _FORMAT + packer.compress(b"".join(body)) + packer.flush()


def unpack_documents(data: bytes, block: Block) -> dict[str, bytes]:
    """The documents by kind, as they were; `block` may hold no more than `BLOCK_BYTES` of its data.

    Raises `LogCorrupted`, also for another block than theirs, and `UnknownFormat`.
    """
    if data[: len(_FORMAT)] > _FORMAT:
        raise UnknownFormat(block.stream)
    dictionary = _dictionary(block)
    try:
        return _documents(data, dictionary)
    except (ValueError, TypeError, AttributeError, zlib.error) as error:
        raise LogCorrupted(block.stream, -1, f"its documents cannot be read: {error}") from error


def opened(kept: Mapping[str, bytes], block: Block | None) -> Mapping[str, bytes]:
    """A stream's documents, from what is kept by kind: as they are, or all of them under `PACKED`."""
    packed = kept.get(PACKED)
    return kept if packed is None or block is None else unpack_documents(packed, block)


def _documents(data: bytes, dictionary: bytes) -> dict[str, bytes]:
    if data[: len(_FORMAT)] != _FORMAT:
        raise ValueError("they have no format")
    unpacker = zlib.decompressobj(zdict=dictionary)
    body = unpacker.decompress(data[len(_FORMAT) :], _UNPACKED_MAX)
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("they do not end where they should")
    at = _U32 + int.from_bytes(body[:_U32], "big")
    header = body[_U32:at]
    documents: dict[str, bytes] = {}
    for kind, size in orjson.loads(header).items():
        documents[kind] = body[at : at + size]
        at += size
    if at != len(body) or _header(documents) != header:
        raise ValueError("they are not all that is there")
    return documents


def _header(documents: Mapping[str, bytes]) -> bytes:
    return orjson.dumps({kind: len(documents[kind]) for kind in sorted(documents)})


def _dictionary(block: Block) -> bytes:
    return DICTIONARY + beginning(block, _BLOCK_MAX)
