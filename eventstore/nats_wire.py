"""NATS's client protocol, as far as this library speaks it: one TCP connection, without I/O of its own.

Why not the usual client: publishing must not wait, a subscription is opened for every streamed response, and
both happen thousands of times a second.  Writing and parsing in place costs a quarter of what tasks and
queues cost (docs/nats.md has the figures).  Whoever subscribes from outside uses any NATS client.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from eventstore.errors import EventStoreError

MAX_LINE: Final = 32 * 1024
"""A server's control lines (INFO is the longest) stay below this; anything longer is not NATS."""
OUT_BYTES_MAX: Final = 8 * 1024 * 1024
"""While more than this waits for a server that does not read, messages are dropped."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")

Handler = Callable[[bytes, bytes, bytes], None]
"""Called with (subject, payload, raw headers) in the event loop; it must not wait or raise."""


class UnsafeToken(EventStoreError):
    """A name cannot be one token of a subject: a dot would add tokens, `*` and `>` reach other subjects."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token

    def __str__(self) -> str:
        return f"{self.token!r} cannot stand in a NATS subject; use 1 to 128 of A-Z a-z 0-9 _ -"


def safe_token(token: str) -> str:
    """The token itself.  Raises `UnsafeToken` where it could mean more than one token."""
    if _TOKEN.fullmatch(token) is None:
        raise UnsafeToken(token)
    return token


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Message headers as they travel.  Line ends within a value become spaces, so none can add a header."""
    lines = [f"{name}: {value}".replace("\r", " ").replace("\n", " ") for name, value in headers.items()]
    return ("NATS/1.0\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode()


class NatsWire(asyncio.Protocol):
    """One connection's life: writes at once what it is given, dispatches what arrives."""

    def __init__(self, handlers: Mapping[int, Handler], on_error: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._handlers = handlers
        self._on_error = on_error
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._pongs: deque[asyncio.Future[bool]] = deque()
        self.heard = False
        """Something arrived since the owner last cleared this."""
        self.info: dict[str, Any] = {}
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    # What the owner calls.

    @property
    def transport(self) -> asyncio.Transport | None:
        """What it writes to, or None once the connection is lost."""
        return self._transport

    def write(self, *parts: bytes) -> bool:
        """Send the joined parts, without waiting; False where too much waits and they were dropped."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() > OUT_BYTES_MAX:
            return False
        transport.write(b"".join(parts))
        return True

    def ping(self) -> asyncio.Future[bool]:
        """Becomes True once the server has processed all that was written before, False if it is lost."""
        pong: asyncio.Future[bool] = self._loop.create_future()
        if self.write(b"PING\r\n"):
            self._pongs.append(pong)
        else:
            pong.set_result(False)
        return pong

    def use(self, transport: asyncio.Transport) -> None:
        """Go on over another transport (TLS over the first one)."""
        self._transport = transport

    def abort(self) -> None:
        """Drop the connection at once; a server that stands still could hold a polite close for ever."""
        if self._transport is not None:
            self._transport.abort()

    async def finish(self, timeout: float) -> None:
        """Send what waits, then close."""
        if self._transport is not None and not self._transport.is_closing():
            await asyncio.wait([self.ping()], timeout=timeout)
        self.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told."""
        self._transport = None
        for pong in self._pongs:
            settle(pong, False)
        self._pongs.clear()
        for future in (self.greeted, self.lost):
            if not future.done():
                future.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take whole operations from what has arrived; keep the rest."""
        self.heard = True
        if self._rest:
            data = self._rest + data
        start, end = 0, len(data)
        while start < end:
            line_end = data.find(b"\r\n", start, start + MAX_LINE)
            if line_end < 0:
                if end - start > MAX_LINE:
                    self.abort()
                break
            try:
                after = self._operation(data, start, line_end)
            except (ValueError, IndexError):
                self.abort()
                break
            if after > end:
                break
            start = after
        self._rest = data[start:] if start else data

    # Helpers.

    def _operation(self, data: bytes, start: int, line_end: int) -> int:
        """Obey one operation; where it ends (past the data: not all of it is here yet)."""
        body = line_end + 2
        if data.startswith(b"MSG ", start):
            fields = data[start + 4 : line_end].split(b" ")
            after = body + int(fields[-1]) + 2
            if after <= len(data):
                self._dispatch(fields, data[body : after - 2], b"")
            return after
        if data.startswith(b"HMSG ", start):
            fields = data[start + 5 : line_end].split(b" ")
            after = body + int(fields[-1]) + 2
            if after <= len(data):
                payload = body + int(fields[-2])
                self._dispatch(fields, data[payload : after - 2], data[body:payload])
            return after
        self._control(data[start:line_end])
        return body

    def _dispatch(self, fields: list[bytes], payload: bytes, headers: bytes) -> None:
        handler = self._handlers.get(int(fields[1]))
        if handler is not None:
            handler(fields[0], payload, headers)

    def _control(self, line: bytes) -> None:
        if line.startswith(b"PONG"):
            settle(self._pongs.popleft(), True)
        elif line.startswith(b"PING"):
            self.write(b"PONG\r\n")
        elif line.startswith(b"INFO "):
            self.info = json.loads(line[5:])
            if not self.greeted.done():
                self.greeted.set_result(None)
        elif line.startswith(b"-ERR"):
            self._on_error(line[4:].decode(errors="replace").strip(" '"))
        elif not line.startswith(b"+OK"):
            raise ValueError(line[:40])


def settle(pong: asyncio.Future[bool], result: bool) -> None:
    """Answer whoever waits, unless that was done."""
    if not pong.done():
        pong.set_result(result)
