"""How processes talk to the log's owner: frames of a JSON header and raw bytes.

A frame is u32be length of what follows, u32be length of the header, the header, and the blobs whose lengths
the header names.  Requests and answers carry a number and may overtake each other.
Only data travels, no code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from eventstore import errors
from eventstore.errors import EventStoreError
from eventstore.events import (
    Append,
    Block,
    Claim,
    Document,
    Head,
    HeadChange,
    NewEvent,
    NewStream,
    Recorded,
    Seal,
    Unit,
)
from eventstore.sql.requests import Bury, Expired, Outcome, Ping, Renew, Request, SaveCursor, Take

FRAME_BYTES_MAX: Final = 256 << 20
"""More than any unit; a longer frame is not ours, and ends the connection."""

_U32: Final = 4
_PLAIN: Final = (str, int, bytes, type(None))
_SMALL: Final[dict[str, type[Take | Renew | Bury | Expired | SaveCursor | Ping]]] = {
    "take": Take,
    "renew": Renew,
    "bury": Bury,
    "expired": Expired,
    "save_cursor": SaveCursor,
    "ping": Ping,
}
_ERRORS: Final[dict[str, Callable[..., EventStoreError]]] = {
    error.__name__: error
    for error in (
        errors.WrongExpectedVersion,
        errors.Fenced,
        errors.ClaimTaken,
        errors.StreamNotFound,
        errors.LeaseLost,
        errors.StoreUnavailable,
        errors.OutcomeUnknown,
        errors.UnsafeStore,
        errors.UnknownFormat,
        errors.LogCorrupted,
    )
}


def encode_request(number: int, request: Request) -> bytes:
    """A request's frame."""
    if isinstance(request, Unit):
        return _encode_unit(number, request)
    for kind, type_ in _SMALL.items():
        if isinstance(request, type_):
            arguments = [getattr(request, name) for name in type_.__slots__]
            return _frame({"n": number, "k": kind, "a": arguments}, ())
    raise TypeError(f"{request!r} is no request")


def decode_request(header: dict[str, Any], blobs: memoryview) -> Request:
    """The request of a frame."""
    kind = header["k"]
    if kind == "unit":
        return _decode_unit(header, _Blobs(blobs))
    return _SMALL[kind](*header["a"])


def encode_outcome(number: int, outcome: Outcome) -> bytes:
    """The frame that answers the request with this number."""
    body: dict[str, Any] = {"n": number}
    if isinstance(outcome, EventStoreError):
        arguments = [{"hex": a.hex()} if isinstance(a, bytes) else a for a in outcome.args]
        body |= {"k": "error", "e": [type(outcome).__name__, arguments]}
    elif isinstance(outcome, Head):
        body |= {"k": "head", "h": _encode_head(outcome)}
    elif outcome is None:
        body["k"] = "done"
    else:
        # Places of records, or names of holders.
        records = [_fields(one) for one in outcome if isinstance(one, Recorded)]
        body |= {"k": "recorded", "r": records} if records else {"k": "list", "l": list(outcome)}
    return _frame(body, ())


def decode_outcome(header: dict[str, Any]) -> Outcome:
    """The outcome in an answer's header."""
    match header["k"]:
        case "error":
            name, arguments = header["e"]
            return _ERRORS[name](*(bytes.fromhex(a["hex"]) if isinstance(a, dict) else a for a in arguments))
        case "head":
            return _decode_head(header["h"])
        case "recorded":
            return [Recorded(*fields) for fields in header["r"]]
        case "list":
            names: list[str] = header["l"]
            return names
        case _:
            return None


class FrameReader:
    """Cuts what arrives on a connection into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[dict[str, Any], memoryview]]:
        """The frames that `data` completes: header and blobs.  Raises ValueError for what is no frame."""
        self._buffer += data
        frames: list[tuple[dict[str, Any], memoryview]] = []
        at = 0
        while len(self._buffer) - at >= _U32:
            end = at + _U32 + int.from_bytes(self._buffer[at : at + _U32], "big")
            if end - at > FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {end - at} bytes")
            if len(self._buffer) < end:
                break
            frames.append(_parse(bytes(self._buffer[at + _U32 : end])))
            at = end
        del self._buffer[:at]
        return frames


def _parse(body: bytes) -> tuple[dict[str, Any], memoryview]:
    split = _U32 + int.from_bytes(body[:_U32], "big")
    header = orjson.loads(body[_U32:split])
    if not isinstance(header, dict):
        raise ValueError("a frame's header is an object")  # One error for whatever is no frame.
    return header, memoryview(body)[split:]


def _frame(header: dict[str, Any], blobs: Sequence[bytes]) -> bytes:
    head = orjson.dumps(header)
    size = _U32 + len(head) + sum(map(len, blobs))
    if size + _U32 > FRAME_BYTES_MAX:
        raise ValueError(f"a unit of {size} bytes is too large to be recorded")
    return b"".join((size.to_bytes(_U32, "big"), len(head).to_bytes(_U32, "big"), head, *blobs))


class _Blobs:
    """Hands out the bytes behind a header, in order."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise ValueError("a frame is shorter than its header says")
        return bytes(self._data[self._at - size : self._at])


def _encode_unit(number: int, unit: Unit) -> bytes:
    blobs: list[bytes] = []
    appends = []
    for append in unit.appends:
        blobs += [event.data for event in append.events]
        appends.append(
            [
                append.stream,
                append.expected,
                append.epoch,
                append.schema,
                append.erase,
                [[event.type, len(event.data)] for event in append.events],
                None if append.new is None else _fields(append.new),
                None if append.change is None else _fields(append.change),
            ]
        )
    blobs += [claim.fingerprint for claim in unit.claims]
    claims = [[c.scope, c.key, len(c.fingerprint), c.stream, c.expires_at] for c in unit.claims]
    blobs += [document.data for document in unit.documents]
    documents = [[d.stream, d.kind, len(d.data)] for d in unit.documents]
    body = {"n": number, "k": "unit", "a": appends, "c": claims, "d": documents}
    body["s"] = [[s.stream, s.version, s.epoch, [_block(b, blobs) for b in s.blocks]] for s in unit.seals]
    return _frame(body, blobs)


def _block(block: Block, blobs: list[bytes]) -> list[Any]:
    blobs.append(block.data)
    place = (block.first_version, block.last_version, block.first_position, block.last_position)
    return [*place, block.chain.hex(), len(block.data)]


def _decode_unit(header: dict[str, Any], blobs: _Blobs) -> Unit:
    appends = [_decode_append(fields, blobs) for fields in header["a"]]
    claims = [
        Claim(scope, key, blobs.take(size), stream, expires_at)
        for scope, key, size, stream, expires_at in header["c"]
    ]
    documents = [Document(stream, kind, blobs.take(size)) for stream, kind, size in header["d"]]
    seals = [_decode_seal(fields, blobs) for fields in header["s"]]
    return Unit(appends, claims, documents, seals)


def _decode_seal(fields: Sequence[Any], blobs: _Blobs) -> Seal:
    stream, version, epoch, blocks = fields
    return Seal(
        stream,
        version,
        epoch,
        [
            Block(stream, first, last, at, to, bytes.fromhex(chain), blobs.take(size))
            for first, last, at, to, chain, size in blocks
        ],
    )


def _decode_append(fields: Sequence[Any], blobs: _Blobs) -> Append:
    stream, expected, epoch, schema, erase, events, new, change = fields
    return Append(
        stream,
        expected,
        epoch,
        [NewEvent(type_, blobs.take(size)) for type_, size in events],
        schema,
        None if new is None else NewStream(*new),
        None if change is None else HeadChange(*change),
        erase,
    )


def _encode_head(head: Head) -> list[Any]:
    return [field.hex() if isinstance(field, bytes) else field for field in _fields(head)]


def _decode_head(fields: list[Any]) -> Head:
    stream, version, epoch, owner, chain, *rest = fields
    return Head(stream, version, epoch, owner, bytes.fromhex(chain), *rest)


def _fields(value: Recorded | Head | NewStream | HeadChange) -> list[Any]:
    """A dataclass's fields, in the order in which its constructor takes them."""
    fields = [getattr(value, name) for name in value.__slots__]
    # What else there is are attributes, in whatever kind of mapping.
    return [field if isinstance(field, _PLAIN) else dict(field) for field in fields]
