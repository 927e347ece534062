"""How many records to read at once: few enough that their bytes are bounded, whatever the records hold.

A record is a commit of tens of bytes or of a mebibyte, and nobody knows before it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

FIRST: Final = 8
"""Records of the first page."""
BYTES: Final = 1 << 20
"""What a page should hold; the first one, and one that follows small records, may hold more, once."""
LEAST: Final = 2
"""A page of one could not tell the last record of a stream from one that was read before."""
GROWTH: Final = 4


def next_page(limit: int, size: int, most: int) -> int:
    """How many records to ask for after a page of up to `limit` records that held `size` bytes."""
    fits = limit * BYTES // max(size, 1)
    return max(LEAST, min(GROWTH * limit, fits, most))


def payload_size(payload: Sequence[bytes] | None) -> int:
    """The bytes of a record's events."""
    return sum(map(len, payload)) if payload is not None else 0
