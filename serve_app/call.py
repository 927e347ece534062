"""One HTTP request and its answer, as the ASGI server hands them over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from starlette.types import Receive, Scope, Send

from eventstore.meter import METER
from serve_app.errors import Problem, bad_request
from serve_app.principal import NOBODY, Principal

log = logging.getLogger(__name__)

JSON_TYPE: Final = b"application/json"
_TRUE: Final = ("true", "1")
_FALSE: Final = ("false", "0", "")
NUMBER_MAX: Final = 2**63 - 1
PIECE_BYTES: Final = 64 * 1024
WARNING_CHARS_MAX: Final = 1000
"""Proxies and clients bound the headers of an answer, and refuse those that have more."""

_ANSWERS: Final = METER.counter("http_answers", "Answers that were begun, by status.", "status")
_TURN_S: Final = 0.05
"""Seconds within which a departure that the server has heard of reaches whoever asks."""


class ClientLeft(Exception):
    """The client closed its connection; nobody waits for an answer."""


@dataclass(slots=True, eq=False)
class Call:
    """A request that was routed.  Answer it once."""

    scope: Scope
    receive: Receive
    send: Send
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Of every answer, such as its request id."""
    params: Mapping[str, str] = field(default_factory=dict)
    """What the path names."""
    principal: Principal = NOBODY
    """Who asks."""
    begun: bool = False
    """Whether an answer began, so that no other one can follow."""
    request_id: str | None = None
    """What the answer's `x-request-id` and the log's lines name it by."""
    waited: float | None = None
    """Seconds seen to pass since the write began that the client has not made room for yet."""
    relieve: Callable[[], None] | None = None
    """Gives back what a long wait for the client need not hold."""
    stalled: bool = False
    """Whether it ends because its client took nothing."""
    _queries: dict[str, list[str]] | None = None

    def header(self, name: bytes) -> str | None:
        """The first header of that (lower-case) name."""
        for key, value in self.scope["headers"]:
            if key == name:
                return str(value, "latin-1")
        return None

    def warn(self, text: str) -> None:
        """Tell the client of this request, with its answer, and the operator.

        The text may hold the client's words: a line break would end the header, or begin a line of the log.
        """
        cut = text if len(text) <= WARNING_CHARS_MAX else text[:WARNING_CHARS_MAX] + "..."
        shown = "".join(one if " " <= one <= "~" else "?" for one in cut)
        self.headers = (*self.headers, (b"x-rayspond-warning", shown.encode()))
        log.warning("request %s: %s", self.request_id, shown)

    # -- Query ---------------------------------------------------------------------------------------------

    def query(self, name: str) -> str | None:
        """The last query parameter of that name."""
        if self._queries is None:
            self._queries = {}
            text = str(self.scope.get("query_string", b""), "latin-1")
            try:
                pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=100)
            except ValueError:
                raise bad_request("The query has more than 100 parameters.") from None
            for key, value in pairs:
                self._queries.setdefault(key, []).append(value)
        found = self._queries.get(name)
        return found[-1] if found else None

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A query parameter that is true or false.  Raises `ApiError` (400)."""
        value = self.query(name)
        if value is None:
            return default
        if value.lower() in _FALSE:
            return False
        if value.lower() in _TRUE:
            return True
        raise bad_request(f"{name} must be true or false, or left out.", name, "invalid_value")

    def number(self, name: str, default: int, least: int, most: int = NUMBER_MAX) -> int:
        """A query parameter that is a whole number within bounds.  Raises `ApiError` (400)."""
        value = self.query(name)
        if value is None:
            return default
        whole = value.isascii() and value.isdigit() and len(value) <= 19
        if not whole or not least <= int(value) <= most:
            upto = "up" if most == NUMBER_MAX else f"to {most}"
            raise bad_request(
                f"{name} must be a whole number from {least} {upto}, or left out.", name, "invalid_value"
            )
        return int(value)

    def choice(self, name: str, default: str, *allowed: str) -> str:
        """A query parameter that is one of few words.  Raises `ApiError` (400)."""
        value = self.query(name)
        if value is None:
            return default
        if value not in allowed:
            raise bad_request(f"{name} must be {' or '.join(allowed)}, or left out.", name, "invalid_value")
        return value

    # -- Answers -------------------------------------------------------------------------------------------

    async def answer(self, body: bytes, status: int = 200, *more: tuple[bytes, bytes]) -> None:
        """A whole answer; JSON unless `more` names a content type."""
        headers = [(b"content-length", b"%d" % len(body)), *self.headers, *more]
        if not any(name == b"content-type" for name, _ in more):
            headers.append((b"content-type", JSON_TYPE))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        _ANSWERS.add(1, str(status))
        await self.write(body, last=True)

    async def answer_json(self, value: Any, status: int = 200) -> None:
        """A whole answer from plain values."""
        await self.answer(orjson.dumps(value), status)

    async def answer_problem(self, problem: Problem) -> None:
        """An error."""
        more = [(name.encode(), value.encode()) for name, value in problem.headers.items()]
        await self.answer(problem.body(), problem.status, *more)

    async def begin(self, *more: tuple[bytes, bytes]) -> None:
        """Begin an answer whose body comes in pieces."""
        headers = [*self.headers, *more]
        self.begun = True
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})
        _ANSWERS.add(1, "200")

    async def write(self, piece: bytes, *, last: bool = False) -> None:
        """A piece of the body, in one write unless it is longer than `PIECE_BYTES`."""
        if len(piece) > PIECE_BYTES:
            # The server's buffer holds little of what a client does not take, and what it takes is progress.
            rest = (len(piece) - 1) // PIECE_BYTES * PIECE_BYTES
            for start in range(0, rest, PIECE_BYTES):
                await self.write(piece[start : start + PIECE_BYTES])
            piece = piece[rest:]
        self.waited = 0.0
        await self.send({"type": "http.response.body", "body": piece, "more_body": not last})
        self.waited = None


class Departure:
    """Notices that the client left, once its body was read.  Costs nothing until it is first asked."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watch: asyncio.Task[None] | None = None

    def noticed(self) -> bool:
        """Whether the client is known to have left."""
        if self._watch is None:
            self._watch = asyncio.create_task(_until_gone(self._receive), name="departure")
        return self._watch.done()

    async def confirmed(self) -> bool:
        """The same, for a handler that is ended: what ended it may be the very departure, just heard of."""
        if not self.noticed():
            assert self._watch is not None, "noticed() began to watch"
            await asyncio.wait([self._watch], timeout=_TURN_S)
        return self.noticed()

    async def aclose(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    # No method: a task that ended keeps its error, and that its frames, so that what is among their variables
    # must not hold the task, or it all stays until Python looks for garbage.
    while (await receive())["type"] != "http.disconnect":
        pass
