"""The owner's side of the socket: a thread of its own, so that a busy event loop here delays nobody."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from eventstore.errors import EventStoreError, StoreUnavailable
from eventstore.sql.requests import Answer, Outcome, Request
from eventstore.sql.socket_address import listen
from eventstore.sql.socket_protocol import FrameReader, decode_request, encode_outcome

_log = logging.getLogger(__name__)

_OUTSTANDING_MAX: Final = 1024
"""Requests of one connection that may wait for their commit; then no more is read from it."""
_CLOSE_PATIENCE_S: Final = 5.0


class WriterServer:
    """Serves a writer to other processes.  `submit` runs on the server's own event loop."""

    def __init__(self, data_dir: Path, submit: Callable[[Request], Coroutine[Any, Any, Answer]]) -> None:
        self._submit = submit
        self._listener = listen(data_dir)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="log-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer what is on its way, for a moment, then hang up.  Blocks; idempotent."""
        if self._thread.is_alive():
            with suppress(RuntimeError):  # It has just ended by itself.
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve(self._listener))
        except Exception:  # noqa: BLE001  # Nobody waits for this thread: what went wrong must be seen somewhere.
            _log.exception("The log's socket broke down")
        finally:
            self._loop.close()

    async def _serve(self, listener: socket.socket) -> None:
        connections: set[_Connection] = set()
        server = await self._loop.create_unix_server(
            lambda: _Connection(self._submit, connections), sock=listener
        )
        await self._stop.wait()
        server.close()
        for connection in connections:
            connection.drain()
        tasks = [task for connection in connections for task in connection.tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_PATIENCE_S)
        for connection in list(connections):
            connection.hang_up()
        await server.wait_closed()
        # One turn of the loop, in which the closed transports let go of their sockets.
        await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    """One client."""

    def __init__(
        self, submit: Callable[[Request], Coroutine[Any, Any, Answer]], connections: set[_Connection]
    ) -> None:
        self._submit, self._connections = submit, connections
        self._frames = FrameReader()
        self._draining = False
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A unix socket is a stream, but uvloop's streams do not say so by their class.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        # Its requests go on: what was asked for may be committed, and the client will look.
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._draining:
            return
        try:
            for header, blobs in self._frames.feed(data):
                request = decode_request(header, blobs)
                task = asyncio.get_running_loop().create_task(self._answer(header["n"], request))
                self.tasks.add(task)
                task.add_done_callback(self._answered)
        except (ValueError, KeyError, TypeError):
            _log.exception("A client of the log's socket sent what is no request")
            self._transport.abort()
        if len(self.tasks) >= _OUTSTANDING_MAX:
            self._transport.pause_reading()

    def drain(self) -> None:
        """Take no further request."""
        self._draining = True

    def hang_up(self) -> None:
        """Send what is written, then close."""
        self._transport.close()

    async def _answer(self, number: int, request: Request) -> None:
        outcome: Outcome
        try:
            outcome = await self._submit(request)
        except EventStoreError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001  # Whatever is wrong with a request, its sender must hear of it.
            _log.exception("A request of a client of the log's socket failed")
            outcome = StoreUnavailable(repr(error))
        if not self._transport.is_closing():
            self._transport.write(encode_outcome(number, outcome))

    def _answered(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if len(self.tasks) < _OUTSTANDING_MAX and not self._transport.is_closing():
            self._transport.resume_reading()
