"""The log's bytes: how payloads are framed, and how each record is bound to all before it.

Pure functions over docs/adr/0001-log-format.md.  They are a file format: a change here is a new format, never
an edit, and tests/golden/chain_vectors.json would show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

SALT_BYTES: Final = 32
"""As long as the digest: guessing the salt is then no easier than inverting the digest."""

DIGEST_BYTES: Final = 32

_GENESIS: Final = b"rayspond-log-1\x00"
_HEADER: Final = b"\x01"
_LENGTH_BYTES_MAX: Final = 9  # 63 bits: no length on any machine needs more, and reading is bounded.


def frame(events: Sequence[bytes]) -> bytes:
    """The payload of a record: each event's bytes behind their length as unsigned LEB128."""
    parts: list[bytes] = []
    for data in events:
        parts.append(_leb128(len(data)))
        parts.append(data)
    return b"".join(parts)


def unframe(payload: bytes, count: int) -> tuple[bytes, ...]:
    """The `count` events of a payload.  Raises ValueError unless `frame` gives the same bytes again."""
    events: list[bytes] = []
    at = 0
    for _ in range(count):
        length, at = _read_leb128(payload, at)
        if at + length > len(payload):
            raise ValueError("the payload ends within an event")
        events.append(payload[at : at + length])
        at += length
    if at != len(payload):
        raise ValueError(f"{len(payload) - at} bytes follow the payload's last event")
    return tuple(events)


def join_types(types: Sequence[str]) -> str:
    """The event types as they stand in a header.  Raises ValueError for a name that cannot be read back."""
    for name in types:
        if not name or not name.isprintable() or "," in name:
            raise ValueError(f"event type {name!r} must be printable, not empty, and hold no comma")
    return ",".join(types)


def split_types(joined: str) -> tuple[str, ...]:
    """The event types of a header."""
    return tuple(joined.split(","))


def digest(salt: bytes, first_version: int, payload: bytes) -> bytes:
    """32 bytes that name a framed payload and, without the salt, tell nothing of it."""
    return sha256(salt + first_version.to_bytes(8, "big") + payload).digest()


def genesis(stream: str) -> bytes:
    """The chain before a stream's first record."""
    return sha256(_GENESIS + stream.encode()).digest()


def link(
    previous: bytes,
    *,
    stream: str,
    first_version: int,
    types: Sequence[str],
    schema: int,
    epoch: int,
    recorded_at: int,
    digest: bytes,
) -> bytes:
    """The chain after a record: 32 bytes that depend on every header and payload of the stream so far.

    `recorded_at` is in milliseconds since 1970.  The position is not part of it.
    """
    header = canonical_header(stream, first_version, types, schema, epoch, recorded_at)
    return sha256(previous + header + digest).digest()


def canonical_header(
    stream: str, first_version: int, types: Sequence[str], schema: int, epoch: int, recorded_at: int
) -> bytes:
    """The one spelling of a record's header that the chain covers."""
    name = stream.encode()
    joined = join_types(types).encode()
    return b"".join(
        (
            _HEADER,
            len(name).to_bytes(4, "big"),
            name,
            first_version.to_bytes(8, "big"),
            len(types).to_bytes(4, "big"),
            len(joined).to_bytes(4, "big"),
            joined,
            schema.to_bytes(4, "big"),
            epoch.to_bytes(8, "big"),
            recorded_at.to_bytes(8, "big"),
        )
    )


def _leb128(number: int) -> bytes:
    if number < 0x80:  # Nearly every delta.
        return number.to_bytes(1, "big")
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_leb128(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and where it ends.  Only the shortest spelling counts: one payload, one framing."""
    number = 0
    for index, byte in enumerate(data[at : at + _LENGTH_BYTES_MAX]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if byte == 0 and index:
                raise ValueError("a length in the payload is not spelled in the shortest way")
            return number, at + index + 1
    raise ValueError("the payload ends within a length")
