"""How much may wait for a writer at once."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

WAITING_BYTES_MAX: Final = 32 << 20
WAITING_REQUESTS_MAX: Final = 4096


class Room:
    """How much may wait at once, by count and by bytes; others queue for it in order.  For one event loop."""

    def __init__(self, requests: int = WAITING_REQUESTS_MAX, size: int = WAITING_BYTES_MAX) -> None:
        self.loop = asyncio.get_running_loop()
        self._requests, self._size = requests, size
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, size: int) -> None:
        """Wait for room for one request.  One that is larger than all there is gets all there is."""
        size = min(size, WAITING_BYTES_MAX)
        if not self._queue and self._fits(size):
            self._requests -= 1
            self._size -= size
            return
        granted: asyncio.Future[None] = self.loop.create_future()
        self._queue.append((size, granted))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.leave(size)
            raise

    def leave(self, size: int) -> None:
        """Make the room free again."""
        self._requests += 1
        self._size += min(size, WAITING_BYTES_MAX)
        while self._queue and (self._queue[0][1].done() or self._fits(self._queue[0][0])):
            wanted, granted = self._queue.popleft()
            if not granted.done():
                self._requests -= 1
                self._size -= wanted
                granted.set_result(None)

    def _fits(self, size: int) -> bool:
        return self._requests > 0 and self._size >= size
