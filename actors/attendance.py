"""Who listens to the foreground responses of one host, and the end of those to which nobody listens any more.

Only a live replica tells that a client left, and tells it again to whoever takes the response over.  One
that died tells nothing: its responses run to their end, because its clients may be on their way to another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from actors.background import Background

CREATOR: Final = "creator"
"""The listener who made the response."""
LISTENERS_MAX: Final = 256
"""Listeners of one response that are counted; it does not end for further ones that leave."""


class Attendance:
    """Counts listeners.  `abandon` is called for a response whose last one left, when the grace is over."""

    def __init__(
        self, sleep: Callable[[float], Awaitable[None]], abandon: Callable[[str], Awaitable[None]]
    ) -> None:
        self._sleep = sleep
        self._abandon = abandon
        self._listeners: dict[str, set[str]] = {}
        self._graces: dict[str, object] = {}
        """Those to which nobody listens, each with a mark of when that began."""
        self._background = Background()

    def begin(self, response_id: str) -> None:
        """A foreground response runs here from now on; its creator is taken to listen."""
        self._listeners[response_id] = {CREATOR}

    def attach(self, response_id: str, listener: str) -> None:
        """Somebody listens; what was going to end goes on."""
        listeners = self._listeners.get(response_id)
        if listeners is not None and len(listeners) < LISTENERS_MAX:
            listeners.add(listener)
            self._graces.pop(response_id, None)

    def detach(self, response_id: str, listener: str, grace: float) -> None:
        """A listener left; `grace` seconds are left for somebody to come back."""
        listeners = self._listeners.get(response_id)
        if listeners is None:
            return
        listeners.discard(listener)
        if not listeners and response_id not in self._graces:
            mark = self._graces[response_id] = object()
            self._background.spawn(self._wait(response_id, mark, grace))

    def end(self, response_id: str) -> None:
        """It does not run here any more."""
        self._listeners.pop(response_id, None)
        self._graces.pop(response_id, None)

    def close(self) -> None:
        """End nothing any more."""
        self._graces.clear()
        self._background.cancel()

    async def _wait(self, response_id: str, mark: object, grace: float) -> None:
        await self._sleep(grace)
        if self._graces.get(response_id) is mark:
            await self._abandon(response_id)
