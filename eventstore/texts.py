"""Events taken apart, so that they compress well: the strings of their arrays lie end to end.

The deltas of an answer are such strings.  Laid end to end they are its text, which the documents beside the
stream repeat.  See docs/adr/0017-sealing.md: a file format.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain as flatten
from typing import Final

# Every string is matched, so that none begins within another; the group holds those that stand in an array.
# One that never ends is matched as well, or each quote in it would be tried as another's beginning.
_STRING: Final = re.compile(rb'(?<=[\[,])"((?:[^"\\]|\\.)*+)"(?=[,\]])|"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_HOLE: Final = b"\0"
_BETWEEN: Final = b"\n"
"""Like the hole it does not occur in compact JSON."""
STRINGS_MAX: Final = 1 << 16
"""Strings of a block that are taken apart: each is an object in memory, many times its bytes in the block."""


def apart(events: Sequence[bytes]) -> tuple[bytes, Sequence[bytes]]:
    """What is left of events without the strings of their arrays, and these strings.

    Nothing is left, and the events stand in the place of strings, where they could not be put together again
    or may hold more than `STRINGS_MAX` strings.
    """
    if sum(event.count(b'"') for event in events) > 2 * STRINGS_MAX:
        return b"", events
    joined = _BETWEEN.join(events)
    strings: list[bytes] = []

    def taken(found: re.Match[bytes]) -> bytes:
        if found[1] is None:
            return found[0]
        strings.append(found[1])
        return _HOLE

    left = _STRING.sub(taken, joined)
    if left and _filled(left, strings) == list(events):
        return left, strings
    return b"", events


def together(left: bytes, strings: Sequence[bytes]) -> list[bytes]:
    """The events of which `apart` made this.  Raises ValueError where there is another number of strings."""
    events = _filled(left, strings) if left else list(strings)
    if events is None:
        raise ValueError("its events lack strings, or hold more")
    return events


def _filled(left: bytes, strings: Sequence[bytes]) -> list[bytes] | None:
    if left.count(_HOLE) != len(strings):
        return None
    pieces = left.split(_HOLE)
    quoted = [b'"%b"' % string for string in strings]
    whole = b"".join(flatten.from_iterable(zip(pieces, [*quoted, b""], strict=True)))
    return whole.split(_BETWEEN)
