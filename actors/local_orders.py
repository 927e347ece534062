"""Orders to a host or the supervisor on the same node, over a unix socket; Ray carries those to other nodes.

A call of a Ray actor costs both processes milliseconds, and a client waits for an order before all else.
Ray stays what knows of hosts and their deaths: a line that breaks proves nothing.

Messages are pickled, as Ray pickles them, so both ends speak to processes of their own user only, and a host
only to who sends its token first: anybody can list the names, and users of other containers may have the same
numbers.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import pickle
import secrets
import socket
import struct
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from actors.hosts import HostUnreachable
from actors.orders import PlacementError

log = logging.getLogger(__name__)

Obey = Callable[[Any], Awaitable[Any]]
"""Takes what a process asks for, and returns the answer: both are up to the ends."""

OUTSTANDING_MAX: Final = 1024
"""Calls of one process that a host carries out at a time; then no more is read from it."""

_LENGTH: Final = struct.Struct("!Q")
_CREDENTIALS: Final = struct.Struct("3i")
"""Of a peer: its process, user and group."""
_BACKLOG: Final = 128
_TOKEN_BYTES: Final = 32
_REFUSED_MAX: Final = 1024
"""Addresses of hosts that hung up at once which a process remembers."""


class _End(asyncio.Protocol, ABC):
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
        try:
            peer = transport.get_extra_info("socket")
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            _, user, _ = _CREDENTIALS.unpack(credentials)
        except OSError as error:
            log.error("a process was refused: the system does not tell its user: %s", error)
            self.hang_up()
            return
        if user != self._user:
            log.error("a process of user %d was refused: orders are for user %d", user, self._user)
            self.hang_up()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._held += data
        while self.is_open and self._is_trusted() and len(self._held) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._held)[0]
            if len(self._held) < end:
                return
            message = bytes(self._held[_LENGTH.size : end])
            del self._held[:end]
            self._received(*pickle.loads(message))

    def _is_trusted(self) -> bool:
        """Whether what is held may be read."""
        return True

    def _send(self, number: int, what: object) -> None:
        message = pickle.dumps((number, what), pickle.HIGHEST_PROTOCOL)
        if self._transport is not None and self.is_open:
            self._transport.write(_LENGTH.pack(len(message)) + message)

    @abstractmethod
    def _received(self, number: int, what: Any) -> None:
        """Take a message."""


class LocalOrders:
    """A host's side: takes orders from any process of this node that knows `address`."""

    def __init__(self, obey: Obey, user: int | None = None) -> None:
        """`user` is who may connect: by its number, and by default the one that runs this process."""
        self._obey = obey
        self._user = os.getuid() if user is None else user
        self._server: asyncio.Server | None = None
        self._callers: set[_Caller] = set()
        self._token = secrets.token_bytes(_TOKEN_BYTES)
        self.address = f"rayspond-host-{secrets.token_hex(16)}:{self._token.hex()}"
        """A name that ends with the process, and leaves nothing in any folder; then the token, a secret."""

    async def open(self) -> None:
        """Listen."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(_split(self.address)[0])
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
        caller = _Caller(self._obey, self._user, self._token, self._callers.discard)
        self._callers.add(caller)
        return caller


class _Caller(_End):
    """A process that gives orders, as its host sees it."""

    def __init__(self, obey: Obey, user: int, token: bytes, gone: Callable[[_Caller], None]) -> None:
        super().__init__(user)
        self._obey = obey
        self._token: bytes | None = token
        """What it has to send before all else."""
        self._gone = gone
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`.  What it ordered goes on."""
        self._gone(self)

    def _is_trusted(self) -> bool:
        if self._token is not None and len(self._held) >= _TOKEN_BYTES:
            if hmac.compare_digest(self._held[:_TOKEN_BYTES], self._token):
                del self._held[:_TOKEN_BYTES]
                self._token = None
            else:
                log.error("a process was refused: it does not know the token")
                self.hang_up()
        return self._token is None

    def _received(self, number: int, what: Any) -> None:
        task = asyncio.create_task(self._answer(number, what))
        self._tasks.add(task)
        task.add_done_callback(self._answered)
        if len(self._tasks) >= OUTSTANDING_MAX and self._transport is not None:
            self._transport.pause_reading()

    async def _answer(self, number: int, what: Any) -> None:
        try:
            self._send(number, await self._obey(what))
        except Exception as error:
            # Whatever is wrong, its sender must hear of it.
            log.exception("%s could not be obeyed", type(what).__name__)
            self._send(number, PlacementError(f"its host met {type(error).__name__}"))

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is not None:
            self.hang_up()  # There will be no answer, and who waits must hear of that, too.
        elif len(self._tasks) < OUTSTANDING_MAX and self._transport is not None and self.is_open:
            self._transport.resume_reading()


class LocalLine(_End):
    """The other side: one connection for all orders that a process gives a host."""

    def __init__(self, address: str, gone: Callable[[LocalLine, bool], None]) -> None:
        """`gone` hears that it cannot be used any more, and whether it was open."""
        super().__init__(os.getuid())
        self.address = address
        self.loop = asyncio.get_running_loop()
        """Where it can be used."""
        self.has_answered = False
        self._gone = gone
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._opening = self.loop.create_task(self._open())

    async def opened(self) -> bool:
        """Whether the host can be reached this way, once that is known."""
        return await asyncio.shield(self._opening)

    async def obey(self, what: Any) -> Any:
        """The answer of whoever listens there.

        Raises the `PlacementError` that is the answer, and `HostUnreachable` where the line breaks before.
        """
        if not self.is_open:
            raise HostUnreachable("it hung up")
        self._number += 1
        number = self._number
        answer: asyncio.Future[Any] = self.loop.create_future()
        self._waiting[number] = answer
        try:
            self._send(number, what)
            return await answer
        finally:
            del self._waiting[number]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if self._transport is not None and self.is_open:
            self._transport.write(_split(self.address)[1])

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._gone(self, True)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(HostUnreachable("it hung up"))

    async def _open(self) -> bool:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            # Never waits: somebody listens there, or nobody does.
            connection.connect(_split(self.address)[0])
            await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=connection)
        except OSError as error:
            connection.close()
            self._gone(self, False)
            log.info("no line to a host of this node: %s", error)
            return False
        return True

    def _received(self, number: int, what: Any) -> None:
        self.has_answered = True
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return
        if isinstance(what, PlacementError):
            answer.set_exception(what)
        else:
            answer.set_result(what)


class LocalLines:
    """The lines of one process, each opened by the first order."""

    def __init__(self) -> None:
        self._lines: dict[str, LocalLine] = {}
        self._refused: OrderedDict[str, None] = OrderedDict()
        """Addresses of hosts that hung up before they ever answered: they do not trust this process."""

    async def to(self, address: str) -> LocalLine | None:
        """The line to the host that listens at `address`, or None where it cannot be reached this way."""
        if address in self._refused:
            return None
        line = self._lines.get(address)
        if line is None or line.loop is not asyncio.get_running_loop():
            line = self._lines[address] = LocalLine(address, self._forget)
        return line if await line.opened() else None

    def close(self) -> None:
        """Hang up; an order opens a line again."""
        lines, self._lines = self._lines, {}
        for line in lines.values():
            line.hang_up()

    def _forget(self, line: LocalLine, was_open: bool) -> None:
        if self._lines.get(line.address) is not line:
            return
        del self._lines[line.address]
        if was_open and not line.has_answered:
            self._refused[line.address] = None
            if len(self._refused) > _REFUSED_MAX:
                self._refused.popitem(last=False)


def _split(address: str) -> tuple[str, bytes]:
    """A name in the kernel's own namespace of sockets, which has no files, and the token."""
    name, _, token = address.partition(":")
    return f"\0{name}", bytes.fromhex(token)
