"""What leaves: wire events, their bytes, and the digest of all that was shown.

One serializer with fixed options makes every byte that clients, subscribers and the log see.  Keys keep the
order in which the projection wrote them.  See docs/adr/0003-wire-bytes.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson

DONE_FRAME: Final = b"data: [DONE]\n\n"
"""The last frame on SSE, never on WebSocket; not a wire event, it has no number."""


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON, keys in insertion order, floats in their shortest form.

    Raises `TypeError` for what is not JSON: lone surrogates, integers beyond 64 bits, too deep a nesting.
    The edges refuse or replace those, so nothing of the kind gets here.
    """
    return orjson.dumps(value)


class WireEvent(NamedTuple):
    """One streaming event of the Responses API."""

    number: int
    """`sequence_number`: 0, 1, 2 ... per response."""
    type: str
    data: bytes
    """The JSON, one line."""

    @property
    def frame(self) -> bytes:
        """The SSE frame: LF only, whole, without an id (PROTOCOL.md, framing)."""
        return b"event: %b\ndata: %b\n\n" % (self.type.encode(), self.data)


class Shown:
    """Everything that a response has shown so far: how many wire events, and the digest of their data.

    The digest is SHA-256 over each event's data followed by LF, so that anybody who kept the `data:` lines of
    a stream can check it with standard tools.  Values are immutable.
    """

    __slots__ = ("_hash", "count")

    def __init__(self) -> None:
        self.count = 0
        self._hash = hashlib.sha256()

    def plus(self, events: Iterable[WireEvent]) -> Shown:
        """What will have been shown after these."""
        data = [event.data for event in events]
        if not data:
            return self
        shown = object.__new__(Shown)
        shown.count = self.count + len(data)
        shown._hash = self._hash.copy()
        data.append(b"")  # Ends the last line.
        shown._hash.update(b"\n".join(data))
        return shown

    @property
    def digest(self) -> str:
        """Hex SHA-256."""
        return self._hash.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shown) and (self.count, self.digest) == (other.count, other.digest)

    def __hash__(self) -> int:
        return hash((self.count, self.digest))

    def __repr__(self) -> str:
        return f"Shown({self.count} events, {self.digest})"


def data_of(frame: bytes) -> bytes:
    """The JSON inside an SSE frame that `WireEvent.frame` made."""
    return frame[frame.index(b"\n") + 7 : -2]
