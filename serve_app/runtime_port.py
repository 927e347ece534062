"""What the HTTP layer needs from whatever runs responses.

`actors.client` implements it on Ray; tests implement it in one process.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from actors.orders import AggregateOrder, HostInfo, Running
from actors.quotas import Ask, Lease
from eventstore.glances import Glances
from eventstore.meter import Figures
from eventstore.ports import LiveBus, LogReader
from runtime.response.commands import Create


class Runtime(Protocol):
    """Commands go in here; what comes of them is read from the log, with the bus as a hint.

    Every command may raise `actors.orders.Overloaded`, `actors.orders.RuntimeUnavailable` or
    `eventstore.errors.StoreUnavailable`.
    """

    @property
    def reader(self) -> LogReader:
        """The log, for reading."""
        ...

    @property
    def glances(self) -> Glances:
        """Where streams stand, for many who follow one."""
        ...

    @property
    def bus(self) -> LiveBus:
        """Where the frames of running responses are heard."""
        ...

    async def create(self, command: Create) -> None:
        """Make the response.  Returns once its creation is committed.

        Raises the errors of `runtime.response.errors` where the request cannot be served; nothing was
        written then.
        """
        ...

    async def cancel(self, response_id: str, by: str) -> None:
        """End the response.  Returns once its last event is committed; a no-op on one that is over.

        Raises `actors.orders.UnknownResponse`.
        """
        ...

    async def delete(self, response_id: str, by: str) -> None:
        """Cancel the response if it runs, then erase it.  Raises `actors.orders.UnknownResponse`."""
        ...

    async def change(self, order: AggregateOrder) -> None:
        """Carry out a command to a project or another aggregate that no host runs.

        Returns once what follows is committed.  Raises the aggregate's `runtime.aggregate.Refused`.
        """
        ...

    async def lend(self, ask: Ask) -> Lease:
        """A slice of a project's budget, for this process."""
        ...

    async def attend(self, response_id: str, listener: str, left: asyncio.Event, grace: float | None) -> None:
        """Tell whoever runs a foreground response that somebody listens to it, and once `left` is set that
        the listener left: it ends, unless somebody listens again within `grace` seconds.  Returns once it is
        over."""
        ...

    async def running(self) -> list[tuple[HostInfo, list[Running]]]:
        """Every host with the responses that run on it."""
        ...

    async def figures(self) -> list[tuple[str, Figures]]:
        """What every process counted, by the process's name."""
        ...

    async def warnings(self) -> list[str]:
        """What is not as it should be although responses are served, in words for people."""
        ...

    async def ready(self) -> list[str]:
        """What keeps it from serving, in words for people; empty when nothing does."""
        ...
