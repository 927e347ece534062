"""nats-py's client for the life of one connection: nothing on it waits for the server.

Everything that relies on nats-py's inner ways is in this file; ADR 4 says why it is needed.  Where a new
version changes them, tests/integration/test_nats_client.py fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from nats.aio.client import Client, _validate_subject
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.protocol.command import hpub_cmd, pub_cmd

OUT_BYTES_MAX: Final = 8 * 1024 * 1024
"""While more than this waits for a server that does not read, messages are dropped."""
IN_FLIGHT_MAX: Final = 256 * 1024
"""Bytes that the operating system has not taken yet; beyond them nats-py's flusher waits for the server."""
COMMANDS_MAX: Final = 1 << 20
"""What may be subscribed, ended and asked while a server stands still; far more than happens until then."""

Handler = Callable[[Msg], None]
"""Called in the event loop with each message; it must not wait or raise."""

_Result = TypeVar("_Result")


class WouldWait(NatsError):  # type: ignore[misc]  # mypy takes nats-py for untyped; pyright checks this
    """A call of nats-py waits that never did: this version of it does not fit."""

    def __str__(self) -> str:
        return "this version of nats-py waits where 2.16 did not"


def at_once(call: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of a coroutine that has nothing to wait for.  Raises `WouldWait`.

    nats-py's methods are coroutines because they may have to make room.  With the options that
    `OneConnection` sets there is always room, so a task and a turn of the event loop would be for nothing.
    """
    try:
        call.send(None)
    except StopIteration as done:
        result: _Result = done.value
        return result
    call.close()
    raise WouldWait


class _Hearing(asyncio.Future[Msg]):
    """Given to nats-py as the future of a reply, it hands on every message at once.

    The other two ways to subscribe cost a task, or a queue and a task for each message that is waited for.
    """

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self._handler = handler

    def set_result(self, message: Msg) -> None:
        self._handler(message)


class _Pong(asyncio.Future[bool]):
    """Resolved once, whoever comes first: nats-py stops reading where a pong comes after its timeout."""

    def set_result(self, result: bool) -> None:
        if not self.done():
            super().set_result(result)


class OneConnection(Client):  # type: ignore[misc]  # mypy takes nats-py for untyped; pyright checks this
    """A client that ends with its connection; whoever keeps connected opens another one.

    What it is asked after that is refused with an error of nats-py.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pending: list[bytes]
        self.over: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """Why the connection ended, once it has."""
        self._writing: asyncio.Handle | None = None

    async def open(self, **options: Any) -> None:
        """Try until a server is reached; raises what it says where it refuses us.  Options of `connect`."""
        await self.connect(
            **options,
            allow_reconnect=False,
            max_reconnect_attempts=-1,
            # No buffer of its own: with one, it waits for the server when that is full.
            pending_size=0,
            flusher_queue_size=COMMANDS_MAX,
        )

    def send(self, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None) -> bool:
        """Publish; False where too much waits already.  Raises `nats.errors.Error`."""
        if self.pending_data_size > OUT_BYTES_MAX:
            return False
        block = _header_block(headers) if headers else b""
        if block is None or len(payload) > self.max_payload or not self.is_connected:
            at_once(self.publish(subject, payload, reply, dict(headers) if headers else None))
            return True
        # What nats-py does, in one call in the place of six: this is done for every batch and every event.
        _validate_subject(subject)
        command = hpub_cmd(subject, reply, block, payload) if headers else pub_cmd(subject, reply, payload)
        self._pending.append(command)
        self._pending_data_size += len(command)
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(payload)
        if self._writing is None:
            at_once(self._flush_pending())
        return True

    def hear(self, subject: str, handler: Handler) -> Subscription:
        """Subscribe.  Raises `nats.errors.Error`."""
        return at_once(self.subscribe(subject, future=_Hearing(handler)))

    def unhear(self, subscription: Subscription) -> None:
        """End a subscription; one of an earlier connection has ended."""
        with suppress(NatsError):
            at_once(subscription.unsubscribe())

    async def arrived(self, timeout: float) -> bool:
        """Wait until the server has processed what was sent before; False if it did not in time."""
        pong = _Pong()
        at_once(self._send_ping(pong))
        # A timer of its own costs a fifth of asyncio.wait; every streamed response comes by here.
        timer = asyncio.get_running_loop().call_later(timeout, pong.set_result, False)
        try:
            return await pong
        finally:
            timer.cancel()

    async def dispose(self) -> None:
        """Drop the connection at once, and what was not sent with it.

        A server that stands still with its buffers full would hold up a polite close for ever.
        """
        for pong in self._pongs:
            pong.set_result(False)
        _abort(self)
        if self._flush_queue is not None:
            with suppress(OSError, NatsError):
                await self.close()

    # What nats-py calls.

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        # With the next turn of the loop, and what else is sent until then: nats-py wakes a task for it, which
        # costs as much as a message.
        if self._writing is not None and not force_flush:
            return
        stream = _stream(self)
        if stream is None or force_flush or stream.get_write_buffer_size() > IN_FLIGHT_MAX:
            await super()._flush_pending(force_flush)
        else:
            self._writing = asyncio.get_running_loop().call_soon(self._write_pending)

    def _write_pending(self) -> None:
        self._writing = None
        stream = _stream(self)
        # What a connection that ends did not send is lost with it; uvloop raises where it is written still.
        if self._pending and stream is not None and not stream.is_closing():
            written = b"".join(self._pending)
            self._pending.clear()
            self._pending_data_size = 0
            stream.write(written)

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        # nats-py writes a ping past what is still pending, so that its pong would prove nothing.
        self._pongs.append(future or _Pong())
        await self._send_command(b"PING\r\n")
        await self._flush_pending()

    async def _process_op_err(self, e: Exception) -> None:
        # The end of every connection, noticed by its reader, its writer or its pings.
        if not self.over.done():
            self.over.set_result(e)

    async def _process_err(self, err_msg: str) -> None:
        # The server's -ERR.  A permission that is missing harms nothing else; with all others it hangs up.
        error = NatsError(err_msg.strip("'"))
        if err_msg.strip("'").startswith("permissions violation"):
            await self._error_cb(error)
        else:
            await self._process_op_err(error)


def _header_block(headers: Mapping[str, str]) -> bytes | None:
    """The headers as they travel; None where one of them holds what nats-py would take out.

    nats-py looks at each name and value by itself, which costs a multiple of all else that a message needs.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "" in headers:
        return None
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def _stream(client: Any) -> asyncio.WriteTransport | None:
    """What the client writes to, once it is connected."""
    writer = getattr(client._transport, "_io_writer", None)
    return None if writer is None else writer.transport


def _abort(client: Any) -> None:
    stream = _stream(client)
    if stream is not None:
        stream.abort()
    client._transport = None
