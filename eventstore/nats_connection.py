"""One connection to NATS a process: it comes back by itself, and everything on it is shared.

Publishing and subscribing are plain calls that never wait; what is published while the server is away is
dropped, because everything that matters is in the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

from eventstore.nats_wire import Handler, NatsWire, settle

CONNECT_TIMEOUT: Final = 2.0
PING_SECONDS: Final = 2.0
SILENT_PINGS_MAX: Final = 2
"""A server that answered nothing for two pings has stopped; a new connection is tried."""
RETRY_SECONDS_MIN: Final = 0.05
RETRY_SECONDS_MAX: Final = 1.0
DEFAULT_PORT: Final = 4222

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server listens and who we are there."""

    host: str
    port: int
    user: str | None
    password: str | None
    """Without a user this is a token."""
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Server:
        """From `nats://user:password@host:port`, `nats://token@host` or `tls://...`."""
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        if parts.scheme not in ("nats", "tls") or not parts.hostname:
            raise ValueError("a NATS url looks like nats://user:password@host:4222 or tls://host:4222")
        user, password = parts.username, parts.password
        if user is not None and password is None:
            user, password = None, user
        return cls(
            host=parts.hostname,
            port=parts.port or DEFAULT_PORT,
            user=unquote(user) if user is not None else None,
            password=unquote(password) if password is not None else None,
            tls=parts.scheme == "tls",
        )

    def connect_options(self, name: str, tls: bool) -> dict[str, Any]:
        """What the CONNECT operation says of us."""
        options: dict[str, Any] = {
            "verbose": False,
            "pedantic": False,
            "tls_required": tls,
            "name": name,
            "lang": "rayspond",
            "version": "1",
            "protocol": 1,
            "headers": True,
            "no_responders": True,
        }
        if self.user is not None:
            options |= {"user": self.user, "pass": self.password or ""}
        elif self.password is not None:
            options["auth_token"] = self.password
        return options


class NatsConnection:
    """Publishes and subscribes over whichever connection there is now.  Belongs to one event loop."""

    def __init__(self, url: str, name: str = "rayspond") -> None:
        """`url` may name several servers of a cluster, separated by commas.  Else raises `ValueError`."""
        self._servers = [Server.parse(one.strip()) for one in url.split(",")]
        self._name = name
        self._wire: NatsWire | None = None
        self._handlers: dict[int, Handler] = {}
        self._subjects: dict[int, str] = {}
        self._last_sid = 0
        self._keeper: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._on_connected: list[Callable[[], None]] = []
        self.last_error: str | None = None
        """Why there is no connection, or what the server last refused.  Without credentials."""
        self.dropped = 0
        """Messages that were not sent because the server was away or did not read."""

    @property
    def connected(self) -> bool:
        """Whether a server answers, as far as we know."""
        return self._wire is not None

    @property
    def max_payload(self) -> int:
        """The largest message the server takes, in bytes (1 MiB where it is not known)."""
        return int(self._wire.info.get("max_payload", 1 << 20)) if self._wire else 1 << 20

    @property
    def server_version(self) -> tuple[int, ...] | None:
        """The server's version as numbers, or None without a connection."""
        if self._wire is None:
            return None
        text = str(self._wire.info.get("version", "0")).split("-")[0]
        return tuple(int(part) for part in text.split(".") if part.isdigit())

    async def open(self, timeout: float = CONNECT_TIMEOUT) -> bool:
        """Begin to keep a connection, for ever; whether there is one within `timeout` seconds."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="nats-connection")
        await self.wait_connected(timeout)
        return self.connected

    async def wait_connected(self, timeout: float) -> bool:
        """Wait for a connection, at most `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    def on_connected(self, call: Callable[[], None]) -> None:
        """Call this whenever there is a connection (again), after the subscriptions were renewed on it."""
        self._on_connected.append(call)

    def publish(self, subject: str, *payload: bytes, reply: str = "", headers: bytes = b"") -> bool:
        """Send a message made of the joined parts; False where it was dropped.

        Subjects are built from `safe_token`s; they are not checked again here.
        """
        wire = self._wire
        if wire is None:
            self.dropped += 1
            return False
        size = sum(map(len, payload))
        if headers:
            line = f"HPUB {subject} {reply} {len(headers)} {len(headers) + size}\r\n"
        else:
            line = f"PUB {subject} {reply} {size}\r\n"
        if wire.write(line.encode(), headers, *payload, b"\r\n"):
            return True
        self.dropped += 1
        return False

    def subscribe(self, subject: str, handler: Handler) -> int:
        """Hear a subject, now and after every reconnect; the number that ends it."""
        self._last_sid += 1
        sid = self._last_sid
        self._handlers[sid] = handler
        self._subjects[sid] = subject
        if self._wire is not None:
            self._wire.write(f"SUB {subject} {sid}\r\n".encode())
        return sid

    def unsubscribe(self, sid: int) -> None:
        """Hear it no more."""
        if self._handlers.pop(sid, None) is not None:
            del self._subjects[sid]
            if self._wire is not None:
                self._wire.write(f"UNSUB {sid}\r\n".encode())

    async def flush(self, timeout: float) -> bool:
        """Wait until the server has processed what was written before; False if it did not in time."""
        if self._wire is None:
            return False
        pong = self._wire.ping()
        # A timer of its own costs a fifth of asyncio.wait; every streamed response comes by here.
        timer = asyncio.get_running_loop().call_later(timeout, settle, pong, False)
        try:
            return await pong
        finally:
            timer.cancel()

    async def aclose(self) -> None:
        """Send what waits, then disconnect for good."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.finish(timeout=1.0)
        self._handlers.clear()
        self._subjects.clear()

    # The keeper: connect, watch, and again.

    async def _keep(self) -> None:
        delay, attempt, told = RETRY_SECONDS_MIN, 0, False
        while True:
            server = self._servers[attempt % len(self._servers)]
            attempt += 1
            try:
                # Not wait_for: in Python 3.11 it can swallow the cancellation that closing sends.
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    wire = await self._connect(server)
            except (OSError, TimeoutError, ssl.SSLError, ValueError) as error:
                self.last_error = f"{server.host}:{server.port}: {error or type(error).__name__}"
                if not told:
                    logger.warning("NATS is not reachable (%s); trying on", self.last_error)
                    told = True
                # Jitter, so that a cluster's processes do not all come back in the same instant.
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, RETRY_SECONDS_MAX)
                continue
            if told:
                logger.warning("NATS is back")
            self._welcome(wire)
            delay, told = RETRY_SECONDS_MIN, True
            await self._watch(wire)
            self._wire = None
            self._settled.clear()
            logger.warning("NATS is away (%s); trying on", self.last_error)

    async def _connect(self, server: Server) -> NatsWire:
        """A connection on which the server has accepted us."""
        loop = asyncio.get_running_loop()
        refusals: deque[str] = deque(maxlen=1)
        _, wire = await loop.create_connection(
            lambda: NatsWire(self._handlers, lambda text: self._refused(text, refusals)),
            server.host,
            server.port,
        )
        try:
            await wire.greeted
            tls = server.tls or bool(wire.info.get("tls_required"))
            if tls:
                await self._secure(wire, server)
            options = server.connect_options(self._name, tls)
            wire.write(b"CONNECT ", json.dumps(options).encode(), b"\r\n")
            if not await wire.ping():
                raise ConnectionError(refusals[-1] if refusals else "the server closed the connection")
        except BaseException:
            wire.abort()
            raise
        return wire

    async def _secure(self, wire: NatsWire, server: Server) -> None:
        loop = asyncio.get_running_loop()
        plain = wire.transport
        if plain is None:
            raise ConnectionError("the server closed the connection")
        secured = await loop.start_tls(plain, wire, ssl.create_default_context(), server_hostname=server.host)
        wire.use(cast("asyncio.Transport", secured))

    def _welcome(self, wire: NatsWire) -> None:
        self._wire = wire
        self.last_error = None
        for sid, subject in self._subjects.items():
            wire.write(f"SUB {subject} {sid}\r\n".encode())
        self._settled.set()
        for call in self._on_connected:
            call()

    async def _watch(self, wire: NatsWire) -> None:
        """Return once the connection is gone, or the server stopped answering."""
        silent = 0
        while silent < SILENT_PINGS_MAX:
            wire.heard = False
            wire.ping()
            lost, _ = await asyncio.wait([wire.lost], timeout=PING_SECONDS)
            if lost:
                self.last_error = "the connection was closed"
                return
            silent = 0 if wire.heard else silent + 1
        self.last_error = "the server stopped answering"
        wire.abort()

    def _refused(self, text: str, refusals: deque[str]) -> None:
        refusals.append(text)
        if self._wire is not None and text != self.last_error:
            logger.warning("NATS refused: %s", text)
        self.last_error = text
