"""One client of a replica that listens to a foreground response, and what its host knows of that.

A host that dies hands nothing on, so that whoever takes the response over is told again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from actors.attendance import CREATOR
from actors.orders import AttachOrder, DetachOrder
from eventstore.events import Head

DEPARTED_MAX: Final = 3600.0
"""Seconds for which whoever runs a response is told that its client left."""
AGAIN: Final = 2.0
"""Seconds within which a new host is told."""
LOOK_EVERY: Final = 3
"""Pauses after which the log is read though the host that was told lives: another may have taken over, and
has to know who listens before `AGAIN_GRACE` is over."""
AGAIN_GRACE: Final = 10.0
"""Seconds that are left at least where a departure is told again: who else listens tells it then, too."""


class Listener:
    """Sets out when its client begins to listen."""

    def __init__(self, response_id: str, name: str, left: asyncio.Event, grace: float | None) -> None:
        """`left` is set when the client left.  `grace` seconds later the response may end; None: never."""
        self.response_id = response_id
        self._name = name
        self._left = left
        self._grace = grace
        self._began = _now()
        self._departed = self._began if left.is_set() else None
        self._host: str | None = None
        self._asked = False
        """Whether a host was ever to be told, and may know."""
        self._told: tuple[str | None, int, bool] | None = None
        self._pauses = 0
        self._pause = 0.05

    @property
    def host(self) -> str | None:
        """Which host knows all there is to know, as far as it lives; None where the log is to tell who runs
        the response."""
        return self._host if self._departed is None and self._pauses % LOOK_EVERY else None

    @property
    def waited(self) -> float:
        """Seconds since it set out."""
        return _now() - self._began

    def is_done(self) -> bool:
        """Whether nobody needs to know any more."""
        if self._departed is None:
            return False
        if self._name != CREATOR and (self._knows_departure() or not self._asked):
            # Whoever takes over takes nobody but the creator to listen.
            return True
        return self._grace is None or _now() - self._departed > DEPARTED_MAX

    def news(self, head: Head) -> AttachOrder | DetachOrder | None:
        """What the host that runs the response is to be told now: what it does not know yet."""
        if head.owner is None or self._told == (head.owner, head.epoch, self._departed is not None):
            return None
        self._asked = True
        if self._departed is None or self._grace is None:
            return AttachOrder(self.response_id, self._name)
        grace = self._departed + self._grace - _now()
        least = AGAIN_GRACE if self._knows_departure() else 0.0
        return DetachOrder(self.response_id, self._name, max(grace, least))

    def note_told(self, head: Head, order: AttachOrder | DetachOrder) -> None:
        """Note that the host that runs the response knows this now."""
        self._host = head.owner
        self._told = (head.owner, head.epoch, isinstance(order, DetachOrder))

    async def pause(self) -> None:
        """Wait until there may be something to tell."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause):
                await (asyncio.Event() if self._departed is not None else self._left).wait()
        if self._departed is None and self._left.is_set():
            self._departed = _now()
        self._pauses += 1
        self._pause = min(self._pause * 2, AGAIN)

    def _knows_departure(self) -> bool:
        """Whether a host, if not the one that runs the response now, was told that the client left."""
        return self._told is not None and self._told[2]


def _now() -> float:
    return asyncio.get_running_loop().time()
