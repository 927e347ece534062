"""Tells whoever runs a foreground response that its clients come and go, as this replica sees them.

Nothing is told of a client that heard the end, nor by a replica that dies: that one's clients did not leave.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from actors.attendance import CREATOR
from actors.background import Background
from eventstore.meter import METER
from runtime.response.standing import RUNNING, is_background
from serve_app.call import Call, ClientLeft, Departure
from serve_app.errors import bad_request
from serve_app.runtime_port import Runtime

log = logging.getLogger(__name__)

HEADER: Final = "X-Rayspond-Grace"
NO_END: Final = "none"
GRACE_MAX: Final = 86_400
"""Seconds; whoever wants more wants no end."""
TELLING_MAX: Final = 10_000
"""Clients of whom hosts are told at a time, those who still listen included.  With so many, nothing is told
of further departures, and those responses run on."""


class Presence:
    """The clients of one replica that listen to foreground responses."""

    def __init__(self, runtime: Runtime, grace: float, random_bytes: Callable[[int], bytes]) -> None:
        """`grace` are the seconds of a request that names none."""
        self._runtime = runtime
        self._grace = grace
        self._random_bytes = random_bytes
        self._background = Background()
        METER.read("listeners", "Clients of whom hosts are told.", lambda: len(self._background))

    async def aclose(self) -> None:
        """Tell nobody anything any more: the clients of a replica that ends did not leave."""
        await self._background.aclose()

    def grace_of(self, call: Call) -> float | None:
        """Seconds for which a response goes on without its client; None without end.  Raises `ApiError`."""
        value = call.header(HEADER.lower().encode())
        if value is None:
            return self._grace
        if value.lower() == NO_END:
            return None
        if not (value.isascii() and value.isdigit() and len(value) <= 5) or int(value) > GRACE_MAX:
            message = f"{HEADER} must be whole seconds from 0 to {GRACE_MAX}, or {NO_END}."
            raise bad_request(message, HEADER, "invalid_value")
        return float(value)

    @asynccontextmanager
    async def creator(
        self, call: Call, response_id: str, grace: float | None, *, background: bool
    ) -> AsyncIterator[Departure]:
        """The time in which the client that makes a response waits for it."""
        departure = Departure(call.receive)
        try:
            yield departure
        except (ClientLeft, asyncio.CancelledError, OSError):
            if grace is not None and not background and await departure.confirmed():
                self._tell_departure(response_id, grace)
            raise
        finally:
            await departure.aclose()

    @asynccontextmanager
    async def follower(self, call: Call, response_id: str) -> AsyncIterator[Departure]:
        """The time in which a client listens to a response that was made before."""
        grace = self.grace_of(call)
        departure = Departure(call.receive)
        left = asyncio.Event()
        head = await self._runtime.reader.head(response_id)
        runs = head is not None and head.state in RUNNING and not is_background(head)
        attending = self._background.spawn(self._attend(response_id, left, grace)) if runs else None
        try:
            yield departure
        except (ClientLeft, asyncio.CancelledError, OSError):
            if await departure.confirmed() and len(self._background) < TELLING_MAX:
                left.set()
            raise
        finally:
            if attending is not None and not left.is_set():
                attending.cancel()
            await departure.aclose()

    async def _attend(self, response_id: str, left: asyncio.Event, grace: float | None) -> None:
        await self._runtime.attend(response_id, self._random_bytes(8).hex(), left, grace)

    def _tell_departure(self, response_id: str, grace: float) -> None:
        if len(self._background) < TELLING_MAX:
            left = asyncio.Event()
            left.set()
            self._background.spawn(self._runtime.attend(response_id, CREATOR, left, grace))
        else:
            log.warning("response %s goes on without its client: too many left at once", response_id)
