"""A client of the log's owner: many requests on one connection, and a watch on whether it still answers."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path
from typing import Final, cast

from eventstore.errors import EventStoreError, OutcomeUnknown, StoreUnavailable
from eventstore.sql.requests import Answer, Outcome, Ping, Request, weight
from eventstore.sql.room import Room
from eventstore.sql.socket_address import connect
from eventstore.sql.socket_protocol import FrameReader, decode_outcome, encode_request

_TICK_S: Final = 0.5
SILENT_TICKS_MAX: Final = 4
"""After 2 s without any answer to a ping, the owner hangs.  Its writer's thread answers pings: one that is
stuck in the disk shows itself, though its process and its socket are well."""
_PING: Final = 0
"""The number of every ping."""


class OwnerHangs(StoreUnavailable):
    """The owner is connected but commits nothing: it was halted, or its writer is stuck."""


class RemoteWriter(asyncio.Protocol):
    """The connection to an owner in another process."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames = FrameReader()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._room = Room()
        self._number = _PING
        self._transport: asyncio.Transport | None = None
        self._silent_ticks = 0
        self._answered: asyncio.Event = asyncio.Event()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._watch: asyncio.TimerHandle | None = None
        self.hangs = False

    @classmethod
    async def connect(cls, data_dir: Path, patience: float) -> RemoteWriter:
        """An owner that answers.

        Raises OSError if none is there, `OwnerHangs` if it is silent for `patience` seconds.
        """
        sock = connect(data_dir)
        loop = asyncio.get_running_loop()
        _, writer = await loop.create_unix_connection(cls, sock=sock)
        try:
            writer._ping()
            async with asyncio.timeout(patience):
                await writer._answered.wait()
        except TimeoutError:
            await writer.aclose()
            raise OwnerHangs("the log's owner does not answer") from None
        except BaseException:
            await writer.aclose()
            raise
        if not writer.is_usable:
            raise ConnectionResetError("the log's owner hung up")
        writer._watch = loop.call_later(_TICK_S, writer._look)
        return writer

    @property
    def is_usable(self) -> bool:
        """Whether the connection stands."""
        return self._transport is not None and not self._transport.is_closing()

    async def submit(self, request: Request) -> Answer:
        """What became of the request.  Raises `OutcomeUnknown` if the connection broke before that."""
        size = weight(request)
        await self._room.enter(size)
        try:
            if self._transport is None or self._transport.is_closing():
                raise OutcomeUnknown("the log's owner hung up")
            self._number += 1
            number = self._number
            frame = encode_request(number, request)
            future: asyncio.Future[Answer] = self._loop.create_future()
            if not self._waiting:
                self._silent_ticks = 0
            self._waiting[number] = future
            self._transport.write(frame)
            try:
                return await future
            finally:
                self._waiting.pop(number, None)
        finally:
            self._room.leave(size)

    async def aclose(self) -> None:
        """Hang up."""
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
            await self._lost

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # A unix socket is a stream, but uvloop's streams do not say so by their class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._silent_ticks = 0
        self._answered.set()
        for header, _ in self._frames.feed(data):
            future = self._waiting.get(header["n"])
            if future is None or future.done():
                continue
            outcome: Outcome = decode_outcome(header)
            if isinstance(outcome, EventStoreError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._watch is not None:
            self._watch.cancel()
        self._answered.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(OutcomeUnknown("the log's owner went away"))
        if not self._lost.done():
            self._lost.set_result(None)

    # -- the watch

    def _ping(self) -> None:
        if self._transport is not None:
            self._transport.write(encode_request(_PING, Ping()))

    def _look(self) -> None:
        """Ask whether the owner is there, while something waits for it."""
        if not self.is_usable or self._transport is None:
            return
        if self._waiting:
            if self._silent_ticks >= SILENT_TICKS_MAX:
                self.hangs = True
                self._transport.abort()
                return
            # Ticks of this event loop, not seconds: a loop that was blocked itself must not blame the owner.
            self._silent_ticks += 1
            self._ping()
        self._watch = self._loop.call_later(_TICK_S, self._look)


class BlockingWriter:
    """A connection for plain threads; one request at a time."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._gate = threading.Lock()
        self._socket: socket.socket | None = None
        self._frames = FrameReader()
        self._number = _PING

    def submit(self, request: Request, timeout: float) -> Answer:
        """What became of the request.  Raises `OutcomeUnknown` if no answer came within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._gate:
            # A connection that was left idle may belong to a former owner: one more try, on a new one.
            for fresh in (False, True):
                try:
                    return self._exchange(request, deadline, fresh=fresh)
                except (OSError, ValueError) as error:
                    self._hang_up()
                    if fresh or isinstance(error, TimeoutError):
                        raise OutcomeUnknown(f"no answer from the log's owner: {error}") from error
        raise AssertionError("both tries return or raise")

    def close(self) -> None:
        """Hang up."""
        with self._gate:
            self._hang_up()

    def _hang_up(self) -> None:
        connection, self._socket = self._socket, None
        self._frames = FrameReader()
        if connection is not None:
            connection.close()

    def _exchange(self, request: Request, deadline: float, *, fresh: bool) -> Answer:
        if self._socket is None or fresh:
            self._hang_up()
            self._socket = connect(self._data_dir)
        self._number += 1
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        self._socket.sendall(encode_request(self._number, request))
        while True:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError("it hung up")
            for header, _ in self._frames.feed(data):
                if header["n"] == self._number:
                    outcome = decode_outcome(header)
                    if isinstance(outcome, EventStoreError):
                        raise outcome
                    return outcome
