"""One connection to NATS a process: it comes back by itself, and everything on it is shared.

Publishing and subscribing are plain calls that never wait; what is published while the server is away is
dropped, because everything that matters is in the log.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import StaleConnectionError
from nats.js import JetStreamContext

from eventstore.meter import METER
from eventstore.nats_client import Handler, OneConnection
from eventstore.nats_config import old_server

CONNECT_TIMEOUT: Final = 2.0
PING_SECONDS: Final = 2.0
SILENT_PINGS_MAX: Final = 2
"""A server that answered none of so many pings has stopped; a new connection is tried."""
RETRY_SECONDS: Final = (0.05, 0.4)
"""Between two attempts, by chance, so that a cluster's processes do not all come back in one instant."""

logger = logging.getLogger(__name__)


def connect_options(url: str) -> dict[str, Any]:
    """Where the servers are and who we are there, as nats-py's options.

    From `nats://user:password@host:port`, `nats://token@host` or `tls://...`; several, separated by commas,
    are one cluster with one login.  Else raises `ValueError`.
    """
    options: dict[str, Any] = {"servers": []}
    for one in url.split(","):
        parts = urlsplit(one.strip() if "://" in one else f"nats://{one.strip()}")
        if parts.scheme not in ("nats", "tls") or not parts.hostname:
            raise ValueError("a NATS url looks like nats://user:password@host:4222 or tls://host:4222")
        host = parts.netloc.rpartition("@")[2]
        options["servers"].append(
            f"{parts.scheme}://{host}" if parts.port else f"{parts.scheme}://{host}:4222"
        )
        if parts.username is not None and parts.password is None:
            options["token"] = unquote(parts.username)
        elif parts.username is not None and parts.password is not None:
            options |= {"user": unquote(parts.username), "password": unquote(parts.password)}
    return options


class Hearing:
    """Who hears a subject, on every connection there will be.  Ended by `NatsConnection.unsubscribe`."""

    __slots__ = ("handler", "subject", "subscription")

    def __init__(self, subject: str, handler: Handler) -> None:
        self.subject, self.handler = subject, handler
        self.subscription: Subscription | None = None


class NatsConnection:
    """Publishes and subscribes over whichever connection there is now.  Belongs to one event loop."""

    def __init__(self, url: str, name: str = "rayspond") -> None:
        """`url` may name several servers of a cluster, separated by commas.  Else raises `ValueError`."""
        self._options = connect_options(url) | {
            "name": name,
            "error_cb": self._reported,
            "connect_timeout": CONNECT_TIMEOUT,
            "ping_interval": PING_SECONDS,
            "max_outstanding_pings": SILENT_PINGS_MAX,
        }
        self._client: OneConnection | None = None
        self._hearings: dict[Hearing, None] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._on_connected: list[Callable[[], None]] = []
        self._told = False
        self.last_error: str | None = None
        """Why there is no connection, or what the server last refused.  Without credentials."""
        self.dropped = 0
        """Messages that were not sent because the server was away or did not read."""
        self.connections = 0
        """How often a server was reached."""

    @property
    def connected(self) -> bool:
        """Whether a server answers, as far as we know."""
        return self._client is not None

    @property
    def max_payload(self) -> int:
        """The largest message the server takes, in bytes (1 MiB where it is not known)."""
        return int(self._client.max_payload) if self._client is not None else 1 << 20

    @property
    def server_version(self) -> tuple[int, int, int] | None:
        """The server's version as numbers, or None without a connection."""
        if self._client is None:
            return None
        version = self._client.connected_server_version
        return version.major, version.minor, version.patch

    @property
    def old_server(self) -> str | None:
        """Why the server should be a later one, in words, or None."""
        version = self.server_version
        return None if version is None else old_server(version)

    def jetstream(self, timeout: float) -> JetStreamContext | None:
        """JetStream's API over the present connection, or None; calls raise `nats.errors.Error`."""
        return self._client.jetstream(timeout=timeout) if self._client is not None else None

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

    def publish(
        self, subject: str, *payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> bool:
        """Send a message made of the joined parts; False where it was dropped."""
        if self._client is not None:
            try:
                if self._client.send(subject, b"".join(payload), reply, headers):
                    return True
            except NatsError as error:  # For example a message that is larger than the server takes.
                self._refused(error)
        self.dropped += 1
        return False

    def subscribe(self, subject: str, handler: Handler) -> Hearing:
        """Hear a subject, now and after every reconnect."""
        hearing = Hearing(subject, handler)
        self._hearings[hearing] = None
        self._renew(hearing)
        return hearing

    def unsubscribe(self, hearing: Hearing) -> None:
        """Hear it no more."""
        self._hearings.pop(hearing, None)
        if self._client is not None and hearing.subscription is not None:
            self._client.unhear(hearing.subscription)

    async def flush(self, timeout: float) -> bool:
        """Wait until the server has processed what was sent before; False if it did not in time."""
        return await self._client.arrived(timeout) if self._client is not None else False

    async def aclose(self) -> None:
        """Send what waits, then disconnect for good."""
        await self.flush(timeout=1.0)
        keeper, self._keeper = self._keeper, None
        while keeper is not None and not keeper.done():
            # More than once: wait_for of Python 3.11, which nats-py connects by, can swallow a cancellation.
            keeper.cancel()
            await asyncio.wait([keeper], timeout=0.1)
        self._hearings.clear()

    # The keeper: connect, watch, and again.

    async def _keep(self) -> None:
        while True:
            client = OneConnection()
            try:
                await client.open(**self._options, reconnect_time_wait=random.uniform(*RETRY_SECONDS))
                if not client.is_connected:
                    raise ConnectionError("the server hung up")
                self._welcome(client)
                self._lost(await client.over)
            except (OSError, NatsError, TimeoutError, ValueError) as error:
                self._lost(error)
            finally:
                self._client = None
                self._settled.clear()
                await client.dispose()
            await asyncio.sleep(random.uniform(*RETRY_SECONDS))

    def _welcome(self, client: OneConnection) -> None:
        if self._told:
            logger.warning("NATS is back")
        self._client, self._told, self.last_error = client, False, None
        self.connections += 1
        if (old := self.old_server) is not None:
            logger.warning("%s", old)
        for hearing in self._hearings:
            self._renew(hearing)
        self._settled.set()
        for call in self._on_connected:
            call()

    def _renew(self, hearing: Hearing) -> None:
        if self._client is not None:
            try:
                hearing.subscription = self._client.hear(hearing.subject, hearing.handler)
            except NatsError as error:
                self._refused(error)

    async def _reported(self, error: Exception) -> None:
        """nats-py tells of an attempt that failed, of a lost connection, or of what the server refused."""
        if self._client is None:
            self._lost(error)
        elif not isinstance(error, (OSError, StaleConnectionError)):
            self._refused(error)

    def _lost(self, error: Exception) -> None:
        self.last_error = _text(error)
        if not self._told:
            logger.warning("NATS is away (%s); trying on", self.last_error)
            self._told = True

    def _refused(self, error: Exception) -> None:
        if _text(error) != self.last_error:
            logger.warning("NATS refused: %s", error)
            self.last_error = _text(error)


def count_bus(connection: NatsConnection) -> None:
    """Count what this process's connection does."""
    METER.read("bus_connected", "1 while a NATS server answers.", lambda: connection.connected)
    METER.read("bus_connections", "Times it was reached.", lambda: connection.connections, "counter")
    METER.read("bus_dropped", "Messages it did not get.", lambda: connection.dropped, "counter")


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
