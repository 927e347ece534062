"""The live bus over NATS: one core message per commit and channel, on private subjects.

It never waits for the server and keeps nothing: what it loses, followers read from the log.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from nats.aio.msg import Msg

from eventstore.batch_codec import FRAME_BYTES_MAX, decode, encode
from eventstore.events import Batch
from eventstore.nats_connection import CONNECT_TIMEOUT, NatsConnection
from eventstore.nats_subjects import UnsafeToken, safe_token
from eventstore.ports import Subscription
from eventstore.subscription import BATCHES_MAX, BYTES_MAX, BufferedSubscription

SUBJECT_PREFIX: Final = "_rs.live."
"""Private: the embedded server shows these subjects to nobody but the runtime."""
SUBSCRIBED_TIMEOUT: Final = 0.25
"""How long to wait for the server to know of a subscription; beyond it, followers heal by silence."""
TAP_BATCHES_MAX: Final = 16 * 1024
TAP_BYTES_MAX: Final = 32 << 20
"""A tap hears all channels at once, so it holds more."""

logger = logging.getLogger(__name__)


class NatsLiveBus:
    """`LiveBus` over one connection that all subscriptions of the process share.

    Belongs to one event loop.
    """

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection
        self._followers: set[BufferedSubscription] = set()
        connection.on_connected(self._doubt)

    @classmethod
    async def connect(cls, url: str, name: str = "rayspond", timeout: float = CONNECT_TIMEOUT) -> NatsLiveBus:
        """A bus that keeps trying for ever; waits `timeout` seconds for the first connection.

        Without one it works all the same: publishing drops, followers read the log.  Raises `ValueError`
        where the url is none.
        """
        connection = NatsConnection(url, name)
        await connection.open(timeout)
        return cls(connection)

    @property
    def connection(self) -> NatsConnection:
        """What it sends over; also tells whether a server answers."""
        return self._connection

    @property
    def followers(self) -> int:
        """How many subscriptions there are."""
        return len(self._followers)

    def publish(self, batch: Batch) -> None:
        """See `LiveBus`."""
        try:
            subject = SUBJECT_PREFIX + safe_token(batch.channel)
        except UnsafeToken as error:
            logger.error("a batch was not published live: %s", error)
            return
        limit = min(FRAME_BYTES_MAX, self._connection.max_payload // 2)
        self._connection.publish(subject, *encode(batch, limit))

    def subscribe(self, channel: str, *, ahead: bool = False) -> AbstractAsyncContextManager[Subscription]:
        """See `LiveBus`.  Raises `UnsafeToken` for a name that cannot be one token of a subject."""
        held = BufferedSubscription(BATCHES_MAX, BYTES_MAX)
        return self._hear(SUBJECT_PREFIX + safe_token(channel), held, ahead=ahead)

    def tap(self) -> AbstractAsyncContextManager[Subscription]:
        """Hear all channels: for the relay."""
        return self._hear(f"{SUBJECT_PREFIX}*", BufferedSubscription(TAP_BATCHES_MAX, TAP_BYTES_MAX))

    async def aclose(self) -> None:
        """See `LiveBus`."""
        await self._connection.aclose()

    @asynccontextmanager
    async def _hear(
        self, subject: str, held: BufferedSubscription, *, ahead: bool = False
    ) -> AsyncIterator[Subscription]:
        def arrived(message: Msg) -> None:
            batch = None if message.headers else decode(message.subject[len(SUBJECT_PREFIX) :], message.data)
            if batch is None:
                held.drop()
            else:
                held.offer(batch)

        hearing = self._connection.subscribe(subject, arrived)
        self._followers.add(held)
        try:
            # The publisher has another connection: until the server answers, it may overtake this one.
            if not ahead:
                await self._connection.flush(SUBSCRIBED_TIMEOUT)
            yield held
        finally:
            self._connection.unsubscribe(hearing)
            self._followers.discard(held)

    def _doubt(self) -> None:
        # What was published while the connection was away is lost, so followers look into the log at once.
        for held in self._followers:
            held.drop()
