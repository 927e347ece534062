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
from eventstore.errors import LogCorrupted
from eventstore.events import PACKED, Block

_FORMAT: Final = b"\x01"
_U32: Final = 4
_LEVEL: Final = 9
_BLOCK_MAX: Final = 28_000
"""Bytes of the block that are looked at: with the dictionary before them they stay in reach."""
_UNPACKED_MAX: Final = 1 << 30
"""Bytes, more than a database takes as one document."""


def pack_documents(documents: Mapping[str, bytes], block: Block) -> bytes:
    """Documents by kind, beside the stream's first block."""
    header = orjson.dumps({kind: len(documents[kind]) for kind in sorted(documents)})
    body = [len(header).to_bytes(_U32, "big"), header, *(documents[kind] for kind in sorted(documents))]
    packer = zlib.compressobj(_LEVEL, zdict=_dictionary(block))
    return _FORMAT + packer.compress(b"".join(body)) + packer.flush()


def unpack_documents(data: bytes, block: Block) -> dict[str, bytes]:
    """The documents by kind, as they were.  Raises `LogCorrupted`; another block than theirs is noticed."""
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
        raise ValueError("they have an unknown format")
    unpacker = zlib.decompressobj(zdict=dictionary)
    body = unpacker.decompress(data[len(_FORMAT) :], _UNPACKED_MAX)
    if not unpacker.eof:
        raise ValueError("they do not end where they should")
    at = _U32 + int.from_bytes(body[:_U32], "big")
    documents: dict[str, bytes] = {}
    for kind, size in orjson.loads(body[_U32:at]).items():
        documents[kind] = body[at : at + size]
        at += size
    return documents


def _dictionary(block: Block) -> bytes:
    return DICTIONARY + beginning(block, _BLOCK_MAX)
