"""What a client has of a replica: connections on which frames come in order, until the end or until a cut."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from actors.attendance import CREATOR
from actors.client import RuntimeClient
from actors.orders import AggregateOrder, PlacementError, UnknownResponse
from actors.view import ResponseView
from eventstore.errors import ClaimTaken, EventStoreError, StreamNotFound
from eventstore.events import Batch
from eventstore.follow import follow
from eventstore.ports import Subscription
from runtime import aggregate
from runtime.conversation.aggregate import CATEGORY
from runtime.conversation.commands import Command
from runtime.response.commands import Create
from runtime.response.errors import ResponseError
from runtime.response.replay import ResponseReplay
from runtime.response.standing import RUNNING, is_background
from tests.simulator.loop import NOWHERE
from tests.simulator.machines import ReplicaMachine


class Cut(Exception):
    """The connection broke without an answer, or before its end."""


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


@dataclass
class Connection:
    """One request's answer, as it arrives."""

    _sent: deque[Any] = field(default_factory=deque)
    _arrived: deque[Any] = field(default_factory=deque)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _free_at: float = 0.0
    left: bool = False
    """Whether the client hung up."""

    def send(self, replica: ReplicaMachine, message: Any) -> None:
        """Let something arrive: in order, each a little later."""
        loop = asyncio.get_running_loop()
        self._free_at = max(self._free_at, loop.time() + replica.world.weather.between(0.0001, 0.003))
        self._sent.append(message)
        loop.call_at(self._free_at, self._arrive, context=NOWHERE)

    def _arrive(self) -> None:
        self._arrived.append(self._sent.popleft())
        self._news.set()

    async def next(self) -> Any:
        """What arrives next.  Raises `Cut` and `Refused`."""
        while not self._arrived:
            self._news.clear()
            await self._news.wait()
        message = self._arrived.popleft()
        if isinstance(message, Exception):
            raise message
        return message


Handler = Callable[["Request"], Awaitable[None]]


@dataclass
class Request:
    """A request inside its replica."""

    replica: ReplicaMachine
    client: RuntimeClient
    connection: Connection

    def answer(self, message: Any) -> None:
        """Send something to the client."""
        self.connection.send(self.replica, message)

    async def create(self, command: Create, *, streams: bool) -> None:
        """As `POST /v1/responses` does it."""
        if not streams:
            await self.client.create(command)
            self.answer(await ResponseView(self.replica.store, self.replica.bus).state(command.id))
            return
        async with self.replica.bus.subscribe(command.id) as live:
            await self.client.create(command)
            await self._follow(self._frames(command.id, live, fresh=True))
        if self.connection.left and not command.request.background:
            left = asyncio.Event()
            left.set()
            await self.client.attend(command.id, CREATOR, left, self._grace())

    async def resume(self, response_id: str, after: int) -> None:
        """As `GET /v1/responses/{id}?stream=true&starting_after=` does it."""
        head = await self.replica.store.head(response_id)
        if head is None or head.state == "erased":
            raise UnknownResponse(response_id)
        listens = head.state in RUNNING and not is_background(head)
        listener = f"listener-{self.replica.world.weather.chance.random()}"
        left = asyncio.Event()
        telling = (
            asyncio.create_task(self.client.attend(response_id, listener, left, self._grace()))
            if listens
            else None
        )
        async with self.replica.bus.subscribe(response_id) as live:
            await self._follow(self._frames(response_id, live, after))
        if telling is not None and self.connection.left:
            left.set()
            await telling
        elif telling is not None:
            telling.cancel()

    def _frames(
        self, response_id: str, live: Subscription, after: int = -1, *, fresh: bool = False
    ) -> AsyncGenerator[Batch | None, None]:
        replay = ResponseReplay(self.replica.store, response_id)
        newest = partial(self.client.glances.version, response_id)
        return follow(replay, live, after, fresh=fresh, newest=newest)

    def _grace(self) -> float:
        return self.replica.world.weather.between(0.5, 5)

    async def cancel(self, response_id: str) -> None:
        """As `POST /v1/responses/{id}/cancel` does it."""
        await self.client.cancel(response_id, "key_1")
        self.answer(None)

    async def delete(self, response_id: str) -> None:
        """As `DELETE /v1/responses/{id}` does it."""
        await self.client.delete(response_id, "key_1")
        self.answer(None)

    async def change(self, command: Command) -> None:
        """As the endpoints of conversations do it."""
        await self.client.change(AggregateOrder(CATEGORY, command.conversation, command))
        self.answer(None)

    async def _follow(self, batches: Any) -> None:
        async with aclosing(batches):
            async for batch in batches:
                if self.connection.left:
                    return
                if batch is not None:
                    self.answer(batch)
                    if batch.last:
                        return


def ask(replica: ReplicaMachine, handler: Handler) -> Connection:
    """Send a request to a replica.  Raises `Cut` where nothing listens."""
    if not replica.process.alive or replica.client is None:
        raise Cut("connection refused")
    connection = Connection()
    request = Request(replica, replica.client, connection)

    async def serve() -> None:
        try:
            await handler(request)
        except (PlacementError, ResponseError, aggregate.Refused, StreamNotFound, ClaimTaken) as refusal:
            request.answer(Refused(refusal))
        except EventStoreError as error:
            request.answer(Cut(str(error)))

    replica.process.run(serve())
    replica.process.on_death(lambda: connection.send(replica, Cut("the replica died")))
    return connection
