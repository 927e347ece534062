"""Orders to a host on the same node, over a unix socket; Ray carries those to other nodes.

A call of a Ray actor costs both processes milliseconds, and a client waits for an order before all else.
Ray stays what knows of hosts and their deaths: a line that breaks proves nothing.

Messages are pickled, as Ray pickles them, so both ends speak to processes of their own user only.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import secrets
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, cast

from actors.hosts import HostUnreachable
from actors.orders import Order, PlacementError

log = logging.getLogger(__name__)

Outcomes = list[Exception | None]
Obey = Callable[[Sequence[Order]], Awaitable[Outcomes]]

OUTSTANDING_MAX: Final = 1024
"""Calls of one process that a host carries out at a time; then no more is read from it."""

_LENGTH: Final = struct.Struct("!Q")
_CREDENTIALS: Final = struct.Struct("3i")
"""Of a peer: its process, user and group."""
_BACKLOG: Final = 128


class _End(asyncio.Protocol):
    """One end of a line: messages of a number and something, each behind its length in bytes."""

    def __init__(self, user: int) -> None:
        self._user = user
        self._held = bytearray()
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether something can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def hang_up(self) -> None:
        """Close, whatever is on its way."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        # A unix socket is a stream, but uvloop's streams do not say so by their class.
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("socket")
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, user, _ = _CREDENTIALS.unpack(credentials)
        if user != self._user:
            log.error("a process of user %d was refused: orders are for user %d", user, self._user)
            self.hang_up()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._held += data
        while len(self._held) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._held)[0]
            if len(self._held) < end:
                return
            message = bytes(self._held[_LENGTH.size : end])
            del self._held[:end]
            self._received(*pickle.loads(message))

    def _send(self, number: int, what: object) -> None:
        message = pickle.dumps((number, what), pickle.HIGHEST_PROTOCOL)
        if self._transport is not None:
            self._transport.write(_LENGTH.pack(len(message)) + message)

    def _received(self, number: int, what: Any) -> None:
        raise NotImplementedError


class LocalOrders:
    """A host's side: takes orders from any process of this node that knows `address`."""

    def __init__(self, obey: Obey, user: int | None = None) -> None:
        """`user` is who may connect: by its number, and by default the one that runs this process."""
        self._obey = obey
        self._user = os.getuid() if user is None else user
        self._server: asyncio.Server | None = None
        self._callers: set[_Caller] = set()
        self.address = f"rayspond-host-{secrets.token_hex(16)}"
        """A name that ends with the process, and leaves nothing in any folder."""

    async def open(self) -> None:
        """Listen."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(_name(self.address))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        self._server = await asyncio.get_running_loop().create_unix_server(self._meet, sock=listener)

    def close(self) -> None:
        """Take no further connection, and hang up."""
        if self._server is not None:
            self._server.close()
        for caller in self._callers:
            caller.hang_up()

    def _meet(self) -> _Caller:
        caller = _Caller(self._obey, self._user, self._callers.discard)
        self._callers.add(caller)
        return caller


class _Caller(_End):
    """A process that gives orders, as its host sees it."""

    def __init__(self, obey: Obey, user: int, gone: Callable[[_Caller], None]) -> None:
        super().__init__(user)
        self._obey = obey
        self._gone = gone
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`.  What it ordered goes on."""
        self._gone(self)

    def _received(self, number: int, what: Any) -> None:
        task = asyncio.create_task(self._answer(number, what))
        self._tasks.add(task)
        task.add_done_callback(self._answered)
        if len(self._tasks) >= OUTSTANDING_MAX and self._transport is not None:
            self._transport.pause_reading()

    async def _answer(self, number: int, orders: Sequence[Order]) -> None:
        outcomes: Outcomes
        try:
            outcomes = await self._obey(orders)
        except Exception as error:
            # Whatever is wrong, its sender must hear of it.
            log.exception("orders could not be obeyed")
            outcomes = [PlacementError(f"its host met {type(error).__name__}")] * len(orders)
        if self.is_open:
            self._send(number, outcomes)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if len(self._tasks) < OUTSTANDING_MAX and self._transport is not None and self.is_open:
            self._transport.resume_reading()


class LocalLine(_End):
    """The other side: one connection for all orders that a process gives a host."""

    def __init__(self, address: str, gone: Callable[[LocalLine], None]) -> None:
        super().__init__(os.getuid())
        self.address = address
        self.loop = asyncio.get_running_loop()
        """Where it can be used."""
        self._gone = gone
        self._waiting: dict[int, asyncio.Future[Outcomes]] = {}
        self._number = 0
        self._opening = self.loop.create_task(self._open())

    async def opened(self) -> bool:
        """Whether the host can be reached this way, once that is known."""
        return await asyncio.shield(self._opening)

    async def obey(self, orders: Sequence[Order]) -> Outcomes:
        """See `ActorHost.obey`.  Raises `HostUnreachable` where the line breaks before it has answered."""
        if not self.is_open:
            raise HostUnreachable("it hung up")
        self._number += 1
        number = self._number
        answer: asyncio.Future[Outcomes] = self.loop.create_future()
        self._waiting[number] = answer
        try:
            self._send(number, list(orders))
            return await answer
        finally:
            del self._waiting[number]

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._gone(self)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(HostUnreachable("it hung up"))

    async def _open(self) -> bool:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            # Never waits: somebody listens there, or nobody does.
            connection.connect(_name(self.address))
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=connection)
        except OSError as error:
            connection.close()
            self._gone(self)
            log.info("no line to %s: %s", self.address, error)
            return False
        return True

    def _received(self, number: int, what: Any) -> None:
        answer = self._waiting.get(number)
        if answer is not None and not answer.done():
            answer.set_result(what)


class LocalLines:
    """The lines of one process, each opened by the first order."""

    def __init__(self) -> None:
        self._lines: dict[str, LocalLine] = {}

    async def to(self, address: str) -> LocalLine | None:
        """The line to the host that listens at `address`, or None where it cannot be reached this way."""
        line = self._lines.get(address)
        if line is None or line.loop is not asyncio.get_running_loop():
            line = self._lines[address] = LocalLine(address, self._forget)
        return line if await line.opened() else None

    def close(self) -> None:
        """Hang up; an order opens a line again."""
        for line in self._lines.values():
            line.hang_up()

    def _forget(self, line: LocalLine) -> None:
        if self._lines.get(line.address) is line:
            del self._lines[line.address]


def _name(address: str) -> str:
    """In the kernel's own namespace of sockets, which has no files."""
    return f"\0{address}"
