"""One client of a replica that listens to a foreground response, and what its host knows of that.

A host that dies hands nothing on, so that whoever takes the response over is told again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from actors.orders import AttachOrder, DetachOrder
from eventstore.events import Head

DEPARTED_MAX: Final = 3600.0
"""Seconds for which whoever runs a response is told that its client left."""
AGAIN: Final = 2.0
"""Seconds within which a new host is told."""
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
        self._departed: float | None = None
        self._host: str | None = None
        self._told: tuple[str | None, int, bool] | None = None
        self._pause = 0.05

    @property
    def host(self) -> str | None:
        """Which host knows all there is to know, as far as it lives and runs the response."""
        return self._host if self._departed is None and not self._left.is_set() else None

    @property
    def waited(self) -> float:
        """Seconds since it set out."""
        return _now() - self._began

    def is_done(self) -> bool:
        """Whether nobody needs to know any more."""
        if not self._left.is_set():
            return False
        if self._departed is None:
            self._departed = _now()
        return self._grace is None or _now() - self._departed > DEPARTED_MAX

    def news(self, head: Head) -> AttachOrder | DetachOrder | None:
        """What the host that runs the response does not know yet."""
        if head.owner is None or self._told == (head.owner, head.epoch, self._departed is not None):
            return None
        if self._departed is None or self._grace is None:
            return AttachOrder(self.response_id, self._name)
        again = self._told is not None and self._told[2]
        grace = self._departed + self._grace - _now()
        return DetachOrder(self.response_id, self._name, max(grace, AGAIN_GRACE if again else 0.0))

    def tell(self, head: Head, order: AttachOrder | DetachOrder) -> None:
        """Note that the host that runs the response knows this now."""
        self._host = head.owner
        self._told = (head.owner, head.epoch, isinstance(order, DetachOrder))

    async def pause(self) -> None:
        """Wait until there may be something to tell."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause):
                await (asyncio.Event() if self._departed is not None else self._left).wait()
        self._pause = min(self._pause * 2, AGAIN)


def _now() -> float:
    return asyncio.get_running_loop().time()
