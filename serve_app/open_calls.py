"""The requests that a replica answers now, and the end of those whose client takes nothing.

The server lets us wait while its buffer for a client is full.  Somebody who never reads would so hold a task,
a subscription and a buffer for ever; after a while without any progress the connection is cut.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from eventstore.meter import METER
from serve_app.call import Call

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""Between two looks; more often only where the bound itself is shorter."""

RELIEF_SECONDS: Final = 2.0
"""From then on a write that waits holds only what it must; less often than that, so that a client which is
merely slow costs little work."""

CUT: Final = METER.counter("clients_cut", "Connections cut because their client took nothing for too long.")


class OpenCalls:
    """Every call of one replica while it is answered.  Belongs to one event loop."""

    def __init__(self, stall: float) -> None:
        """`stall` is how many seconds a write may wait for its client."""
        self._stall = stall
        self._tasks: dict[Call, asyncio.Task[object]] = {}
        self._watch: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._tasks)

    @property
    def streams(self) -> int:
        """How many of them are streams that have begun."""
        return sum(call.begun for call in self._tasks)

    @contextmanager
    def answering(self, call: Call) -> Iterator[None]:
        """While a call is answered by the present task.  Returns early where its client takes nothing."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[call] = task
        if self._watch is None:
            self._watch = asyncio.create_task(self._look(), name="stalled clients")
        try:
            yield
        except asyncio.CancelledError:
            if not call.stalled or task.uncancel() > 0:
                raise  # Somebody else wants it to end.
            CUT.add()
            log.warning("a client took nothing for %g s; its connection is cut", self._stall)
        finally:
            del self._tasks[call]

    async def _look(self) -> None:
        """Cut who has stalled, for as long as anybody is there."""
        pause = min(LOOK_SECONDS, self._stall / 4)
        while self._tasks:
            await asyncio.sleep(pause)
            for call, task in list(self._tasks.items()):
                if call.waited is None or call.stalled:
                    continue
                # Not by the clock: while this process was halted, its clients could take nothing.
                call.waited += pause
                if call.waited > self._stall:
                    call.stalled = True
                    task.cancel()
                elif call.waited > RELIEF_SECONDS and call.relieve is not None:
                    call.relieve()
        self._watch = None
