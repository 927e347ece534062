"""Reads a request's JSON body: counted while it arrives, refused where readers could differ about it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import jiter
import orjson
from starlette.types import Receive

from eventstore.meter import METER
from serve_app.call import Call, ClientLeft
from serve_app.errors import UNAVAILABLE, ApiError, Problem, bad_request, invalid, too_large

ARRIVING_BYTES_MAX: Final = 256 * 1024 * 1024
"""What a process holds of bodies that are not whole yet; more is refused.  Else a crowd of long requests that
arrive slowly could take all memory."""


async def read_body(call: Call, limit: int, seconds: float) -> bytes:
    """The whole body.  Raises `ApiError` (408, 413, 415, 503) and `ClientLeft`."""
    encoding = call.header(b"content-encoding")
    if encoding not in (None, "", "identity"):
        raise ApiError(Problem(415, "Compressed bodies are not supported. Send it without Content-Encoding."))
    length = call.header(b"content-length")
    if length is not None and length.isdigit() and int(length) > limit:
        raise _over(limit)
    arriving = _Arriving()
    try:
        async with asyncio.timeout(seconds):
            return await arriving.whole(call.receive, limit)
    except TimeoutError:
        message = f"The body did not arrive within {seconds:g} seconds."
        raise ApiError(Problem(408, message, headers={"connection": "close"})) from None


class _Arriving:
    """A body on its way; all of a process together hold only so much."""

    held = 0
    """Bytes of all of them."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0

    async def whole(self, receive: Receive, limit: int) -> bytes:
        """All of it.  Raises `ApiError` (413, 503) and `ClientLeft`."""
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeft
                more = message.get("more_body", False)
                self._add(message.get("body", b""), limit, more)
                if not more:
                    return b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
        finally:
            _Arriving.held -= self._size

    def _add(self, chunk: bytes, limit: int, more: bool) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        _Arriving.held += len(chunk)
        if self._size > limit:
            raise _over(limit)
        # Whoever is done is let through: its memory is free in a moment.
        if more and _Arriving.held > ARRIVING_BYTES_MAX:
            message = "Too many long requests arrive at once; try again in 1 s."
            more_headers = {"retry-after": "1", "connection": "close"}
            raise ApiError(Problem(503, message, UNAVAILABLE, "server_is_overloaded", headers=more_headers))


METER.read("bodies_arriving_bytes", "Bytes of requests that are not whole yet.", lambda: _Arriving.held)


def _over(limit: int) -> ApiError:
    return too_large(f"The body is longer than {limit:,} bytes, the most this server takes.")


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is.  Raises `ApiError`: 400 for what is no JSON, 422 for another value.

    Two parsers must agree to it: orjson refuses numbers that no double can hold and bytes that are not UTF-8;
    jiter refuses duplicate keys (of which readers keep the first or the last) and more than 200 levels.
    """
    try:
        value = orjson.loads(body)
        jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError as reason:
        raise bad_request(f"The body is not valid JSON: {_why(body, reason)}.", code="invalid_json") from None
    if b"\\u0000" in body and _holds_nul(value):
        message = "The body holds the character U+0000, which texts may not hold. Remove it."
        raise bad_request(message, code="invalid_json")
    if not isinstance(value, dict):
        raise invalid([((), "Input should be a JSON object", "dict_type")])
    return value


def _why(body: bytes, reason: ValueError) -> str:
    """The parser's reason in words that help; never a part of the body."""
    if not body.strip():
        return "it is empty"
    if body.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in body[:4]:
        return "it must be UTF-8, not UTF-16 or UTF-32"
    if body.startswith(b"\xef\xbb\xbf"):
        return "it begins with a byte order mark; send UTF-8 without one"
    text = str(reason)
    if text.startswith("Detected duplicate key"):
        place = text.rpartition(" at ")[2]
        return f"an object has the same key twice, at {place}"
    if text.startswith(("depth limit", "recursion limit")):
        return "it nests deeper than 200 levels"
    return text.replace("str is not valid UTF-8: surrogates not allowed", "it is not valid UTF-8")


def _holds_nul(value: Any) -> bool:
    """Whether any text in it does; the bytes may also have been an escaped backslash before u0000."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if "\x00" in one:
                return True
        elif isinstance(one, dict):
            waiting.extend(one)
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return False
