"""What a bus keeps for one follower until it asks: bounded, and honest about what it dropped."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from eventstore.events import Batch
from eventstore.meter import METER

BATCHES_MAX: Final = 256
BYTES_MAX: Final = 1 << 20
"""Both bounds of DESIGN.md: a reader that is slower than its writer goes back to the log, not to memory."""


_OVERFLOWS: Final = METER.counter(
    "bus_overflows", "Times that a reader's buffer was full, so that all in it was dropped."
)


class BufferedSubscription:
    """`Subscription` over a bounded buffer; every bus adapter feeds one of these by `offer`.

    For one reader, on the event loop that the bus calls `offer` on.
    """

    def __init__(self, batches_max: int = BATCHES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._batches_max, self._bytes_max = batches_max, bytes_max
        self._held: deque[tuple[Batch, int]] = deque()
        self._bytes = 0
        self._dropped = False
        self.lost = False
        """See `Subscription`."""
        self._waiter: asyncio.Future[None] | None = None

    def offer(self, batch: Batch) -> None:
        """Hold a batch for the reader; where it does not fit, drop everything that is held, and it."""
        size = sum(map(len, batch.frames)) if batch.frames else 0
        if len(self._held) >= self._batches_max or self._bytes + size > self._bytes_max:
            _OVERFLOWS.add()
            self.drop()
            return
        self._held.append((batch, size))
        self._bytes += size
        self._wake()

    def drop(self) -> None:
        """Forget what is held and say so to the reader: also for a bus that knows it lost something."""
        self._held.clear()
        self._bytes = 0
        self._dropped = True
        self._wake()

    async def next(self, timeout: float) -> Batch | None:
        """The next batch, or None after `timeout` seconds of silence or once something was dropped."""
        if not self._held and not self._dropped:
            await self._wait(timeout)
        if self._dropped or not self._held:
            self.lost, self._dropped = self._dropped, False
            return None
        batch, size = self._held.popleft()
        self._bytes -= size
        return batch

    async def _wait(self, timeout: float) -> None:
        # A future and a timer, where asyncio.timeout would cancel and catch: this runs for every batch.
        assert self._waiter is None, "a subscription has one reader"
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
