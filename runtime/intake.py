"""What one model call brings, read ahead a little while the log commits what came before.

No timer: whatever arrives while a commit runs is taken together for the next one.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Final, Self

from runtime.model import (
    ArgumentsDelta,
    CallEnded,
    CallStarted,
    ItemClosed,
    ItemOpened,
    Model,
    ModelError,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)

log = logging.getLogger(__name__)

WAITING_MAX: Final = 64
"""Deltas that wait to be saved while the upstream is still read (DESIGN.md, Bus)."""

HANGING_UP: Final = 5.0
"""Seconds that closing the connection may hold up its response."""

_DELTAS = (TextDelta, RefusalDelta, ArgumentsDelta, ReasoningDelta, SummaryDelta)


class Intake:
    """Makes one model call and holds what arrives until it is taken.  Leaving it closes the connection."""

    def __init__(self, model: Model, request: ModelRequest) -> None:
        self._model = model
        self._request = request
        self._events: list[ModelEvent] = []
        self._deltas = 0
        self._worthy = False
        self._over = False
        self._failed: ModelError | None = None
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Begin to call."""
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up, whatever was read."""
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=HANGING_UP)

    async def take(self) -> list[ModelEvent]:
        """All that arrived, once there is something worth a commit or nothing more comes.

        What alone shows a client nothing (an accepted call, an empty message, the end of an item) waits for
        what follows it.
        """
        while not (self._worthy or self._over):
            self._arrived.clear()
            await self._arrived.wait()
        taken, self._events = self._events, []
        self._deltas, self._worthy = 0, False
        self._room.set()
        return taken

    @property
    def error(self) -> ModelError | None:
        """Why nothing more comes, once all was taken; None while more may come, and after a proper end."""
        return self._failed if self._over and not self._events else None

    async def _read(self) -> None:
        try:
            async with self._model.call(self._request) as batches:
                async for batch in batches:
                    for event in batch:
                        self._add(event)
                    self._arrived.set()
                    if self._over:
                        return
                    while self._deltas >= WAITING_MAX:
                        self._room.clear()
                        await self._room.wait()
            raise ModelError(
                "upstream_interrupted",
                "The upstream's answer broke off before its end. Try again.",
                retryable=True,
            )
        except ModelError as error:
            self._fail(error)
        except Exception:  # An adapter's mistake must end in an error event, not in silence.
            log.exception("the adapter of %s broke", self._request.model)
            self._fail(ModelError("server_error", "The model's answer could not be read.", retryable=False))

    def _add(self, event: ModelEvent) -> None:
        self._events.append(event)
        self._deltas += isinstance(event, _DELTAS)
        self._over = self._over or isinstance(event, CallEnded)
        self._worthy = self._worthy or not _shows_nothing(event)

    def _fail(self, error: ModelError) -> None:
        # Closing the connection after a proper end may fail; the answer is whole all the same.
        if not self._over:
            # Without the frames, of which one holds this very object: with the request they would all stay
            # until Python looks for garbage.
            self._failed, self._over = error.with_traceback(None), True
            if self._events and isinstance(self._events[-1], ItemOpened):
                self._events.pop()  # Nothing was said of it yet: it is no use to anybody.
        self._arrived.set()


def _shows_nothing(event: ModelEvent) -> bool:
    match event:
        case CallStarted() | ItemClosed() | ItemOpened(kind="message") | TextDelta(text=""):
            return True
        case _:
            return False
