"""Work beside the loops: tasks that are held, looked at when they end, and ended with their owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
"""After which a task that was cancelled and goes on is cancelled again."""


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they are over.

    More than once: `wait_for` of Python 3.11, which Ray and nats-py wait by, too, can swallow a cancellation.
    """
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


class Background:
    """Tasks of one owner.  Held here, because a task that nobody refers to may vanish."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many run."""
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do it beside everything else; what goes wrong is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def cancel(self) -> None:
        """Have everything that runs end, without waiting for it."""
        for task in list(self._tasks):
            task.cancel()

    async def aclose(self) -> None:
        """End everything that runs."""
        await end(*self._tasks)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever spawned it comes back to whatever was not done.
            log.warning("work beside the loops: %r", error)
