"""Reads a request's JSON body: counted while it arrives, refused where readers could differ about it."""

from __future__ import annotations

import asyncio
from typing import Any

import jiter
import orjson
from starlette.types import Receive

from serve_app.call import Call, ClientLeft
from serve_app.errors import ApiError, Problem, bad_request, invalid, too_large


async def read_body(call: Call, limit: int, seconds: float) -> bytes:
    """The whole body.  Raises `ApiError` (408, 413, 415) and `ClientLeft`."""
    encoding = call.header(b"content-encoding")
    if encoding not in (None, "", "identity"):
        raise ApiError(Problem(415, "Compressed bodies are not supported. Send it without Content-Encoding."))
    length = call.header(b"content-length")
    if length is not None and length.isdigit() and int(length) > limit:
        raise _over(limit)
    try:
        async with asyncio.timeout(seconds):
            return await _collect(call.receive, limit)
    except TimeoutError:
        message = f"The body did not arrive within {seconds:g} seconds."
        raise ApiError(Problem(408, message, headers={"connection": "close"})) from None


async def _collect(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _over(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks) if len(chunks) > 1 else chunk


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
