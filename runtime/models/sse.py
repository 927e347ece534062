"""Server-sent events from bytes, cheaply: whole network reads in, the data of whole events out."""

from __future__ import annotations

# No event of a model comes near; a line without end must not fill the memory.
BUFFER_BYTES = 4 * 1024 * 1024


class EventParser:
    """Splits one stream.  Names, ids and comments are ignored: every API here says all in its data."""

    def __init__(self, limit: int = BUFFER_BYTES) -> None:
        self._rest = b""
        self._limit = limit
        self._first = True

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that `data` completes.  Raises `ValueError` past the limit of one event."""
        data = self._rest + data
        if self._first:
            if len(data) < 3 and b"\xef\xbb\xbf".startswith(data):
                self._rest = data
                return []
            data = data.removeprefix(b"\xef\xbb\xbf")
            self._first = False
        held = b""
        if b"\r" in data:
            # A carriage return at the end may be half of a line's end: it waits for the next read.
            if data.endswith(b"\r"):
                data, held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        blocks = data.split(b"\n\n")
        self._rest = blocks.pop() + held
        if len(self._rest) > self._limit:
            raise ValueError(f"an event of more than {self._limit} bytes")
        events = []
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:
                events.append(block[6:])
            elif (found := _data(block)) is not None:
                events.append(found)
        return events


def _data(block: bytes) -> bytes | None:
    """The data lines of an event, joined; nothing where it has none."""
    lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
