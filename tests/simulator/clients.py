"""Clients create, follow, leave, resume elsewhere, cancel, delete and continue, and keep what they see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Final

from actors.orders import Overloaded, RuntimeUnavailable, UnknownResponse
from eventstore.errors import ClaimTaken, StreamNotFound
from eventstore.events import Batch
from runtime.conversation.commands import ChangeMetadata, CreateConversation
from runtime.conversation.errors import UnknownConversation
from runtime.response.commands import Create, Idempotency
from runtime.response.errors import PreviousResponseInProgress, PreviousResponseNotFound
from runtime.response.items import new_response_id
from runtime.response.request import ResponseRequest
from tests.simulator.conversations import CONVERSATIONS
from tests.simulator.front import Connection, Cut, Handler, Refused, Request, ask
from tests.simulator.machines import ReplicaMachine, World
from tests.simulator.upstream import COUNT, Manner

TRIES_MAX: Final = 200
"""How often a client begins anew before it gives up: far beyond what a simulation lasts."""
DAY_MS: Final = 24 * 3600 * 1000


@dataclass
class Seen:
    """What clients saw of one response."""

    id: str
    manner: Manner
    command: Create
    frames: dict[int, bytes] = field(default_factory=dict)
    accepted: bool = False
    """Whether anybody was told that it exists."""
    cancelled: bool = False
    """Whether a client asked for that."""
    left: bool = False
    """Whether a client hung up before the end."""
    deleted: bool = False
    problems: list[str] = field(default_factory=list)

    def take(self, batch: Batch, after: int) -> int:
        """Keep what a follower that has seen up to frame `after` gets next; up to where it has seen now."""
        self.accepted = True
        if batch.first != after + 1:
            self.problems.append(f"{self.id}: frame {batch.first} came after {after}")
        for number, frame in enumerate(batch.frames or (), batch.first):
            known = self.frames.setdefault(number, frame)
            if known != frame:
                self.problems.append(f"{self.id}: frame {number} was shown as {known!r} and as {frame!r}")
        return max(after, batch.end)


class Client:
    """One person: a few responses, one after the other."""

    def __init__(self, world: World, chance: Random, resumes: Sequence[str]) -> None:
        self._world = world
        self._chance = chance
        self._resumes = resumes
        self.seen: list[Seen] = []

    async def live(self, responses: int) -> None:
        """Do all of it."""
        await self._pause(0, 3)
        for _ in range(responses):
            one = self._draw()
            self.seen.append(one)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._create(one))
                if self._chance.random() < 0.3:
                    group.create_task(self._look_on(one))
                if self._chance.random() < 0.15:
                    group.create_task(self._end(one, delete=False))
                if self._chance.random() < 0.1:
                    group.create_task(self._end(one, delete=True))
            await self._pause(0, 1)

    def _draw(self) -> Seen:
        chance = self._chance
        manner = Manner.draw(self._world.weather, self._resumes)
        question = {"type": "message", "role": "user", "content": COUNT}
        together = not manner.calls and chance.random() < 0.4
        isolation = chance.choice([None, None, None, None, "exclusive", "dedicated"])
        request = ResponseRequest(
            model=repr(manner),
            input=(question,),
            background=chance.random() < 0.5,
            store=chance.random() < 0.8,
            previous_response_id=None if together else self._parent(),
            conversation=chance.choice(CONVERSATIONS) if together else None,
        )
        id = new_response_id(chance.randbytes(16))
        now = self._world.now()
        once = (
            Idempotency(id, b"the same request", int(now * 1000) + DAY_MS) if chance.random() < 0.4 else None
        )
        command = Create(
            id,
            "default",
            "key_1",
            int(now),
            request,
            manner.agent(isolation),
            queued=request.background,
            idempotency=once,
        )
        return Seen(id, manner, command)

    def _parent(self) -> str | None:
        """Usually the last one, if any; now and then one that is not there."""
        usable = [one.id for one in self.seen if one.accepted and not one.manner.calls]
        if usable and self._chance.random() < 0.5:
            return usable[-1]
        return "resp_" + "f" * 32 if self._chance.random() < 0.02 else None

    # -- What a client does --------------------------------------------------------------------------------

    async def _create(self, one: Seen) -> None:
        """Create it; with an idempotency key again and again, as long as nobody answers."""
        if (conversation := one.command.request.conversation) is not None:
            await self._change(conversation)
        for _ in range(TRIES_MAX):
            if await self._try_to_create(one) or one.command.idempotency is None:
                return
            await self._pause(0.05, 1)
            id = new_response_id(self._chance.randbytes(16))
            one = Seen(id, one.manner, replace(one.command, id=id))
            self.seen.append(one)

    async def _try_to_create(self, one: Seen) -> bool:
        """Whether there was an answer; then all of it was followed."""
        streams = not one.command.request.background or self._chance.random() < 0.7
        try:
            connection = await self._ask(partial(Request.create, command=one.command, streams=streams))
            if streams:
                after = -1
                async for batch in self._batches(one, connection):
                    after = one.take(batch, after)
            else:
                await connection.next()
                one.accepted = True
        except Refused as refused:
            self._check_refusal(one, refused.error)
            if isinstance(refused.error, ClaimTaken):
                await self._resume(next(other for other in self.seen if other.id == refused.error.stream), -1)
            if not one.accepted:
                return not isinstance(refused.error, RuntimeUnavailable)
        except Cut:
            if one.command.idempotency is not None and not one.accepted:
                return False
        await self._resume(one, max(one.frames, default=-1))
        return True

    def _check_refusal(self, one: Seen, error: Exception) -> None:
        parent = one.command.request.previous_response_id
        if isinstance(error, PreviousResponseNotFound | PreviousResponseInProgress) and parent is None:
            one.problems.append(f"{one.id}: {error}")
        if isinstance(error, UnknownConversation):
            one.problems.append(f"{one.id}: {error}")
        if isinstance(error, Overloaded) and one.command.request.background:
            one.problems.append(f"{one.id} may wait in the queue and was refused: {error}")

    async def _look_on(self, one: Seen) -> None:
        """Follow it from elsewhere, from some frame on."""
        await self._pause(0.1, 5)
        after = self._chance.choice([-1, *one.frames])
        await self._resume(one, after)

    async def _resume(self, one: Seen, after: int) -> None:
        """Follow it to its end, from whichever replica is there, beginning again as often as need be."""
        for _ in range(TRIES_MAX):
            known = one.accepted
            try:
                connection = await self._ask(partial(Request.resume, response_id=one.id, after=after))
                async for batch in self._batches(one, connection):
                    after = one.take(batch, after)
                return
            except Cut:
                await self._pause(0.01, 10 if one.left else 1)
            except Refused as refused:
                absent = isinstance(refused.error, UnknownResponse | StreamNotFound)
                if not absent or (known and not one.deleted and one.command.request.store):
                    one.problems.append(f"{one.id} could not be resumed: {refused.error!r}")
                return

    async def _end(self, one: Seen, *, delete: bool) -> None:
        await self._pause(0.05, 6)
        for _ in range(TRIES_MAX):
            if delete:
                one.deleted = True
            else:
                one.cancelled = True
            try:
                order = Request.delete if delete else Request.cancel
                connection = await self._ask(partial(order, response_id=one.id))
                await connection.next()
                return
            except Cut:
                await self._pause(0.05, 1)
            except Refused as refused:
                if isinstance(refused.error, UnknownResponse):
                    return
                await self._pause(0.1, 1)

    async def _change(self, conversation: str) -> None:
        """Begin it where it is not there yet, and change it, whatever runs in it."""
        metadata = {"n": self._chance.random()}
        for command in (
            CreateConversation(conversation, "default", None, 0, {}),
            ChangeMetadata(conversation, "default", metadata, "key_1"),
        ):
            for _ in range(TRIES_MAX):
                try:
                    await (await self._ask(partial(Request.change, command=command))).next()
                    break
                except Cut:
                    await self._pause(0.05, 1)
                except Refused as refused:
                    if not isinstance(refused.error, RuntimeUnavailable):
                        raise
                    await self._pause(0.05, 1)

    # -- Connections ---------------------------------------------------------------------------------------

    async def _ask(self, handler: Handler) -> Connection:
        """Send a request to some replica.  Raises `Cut`."""
        replica: ReplicaMachine = self._chance.choice(self._world.replicas)
        await self._pause(0.0001, 0.01)
        return ask(replica, handler)

    async def _batches(self, one: Seen, connection: Connection) -> AsyncIterator[Batch]:
        """What arrives, up to the end, or until the client leaves.  Raises `Cut` and `Refused`."""
        patience = self._chance.choice([10_000, self._chance.randint(1, 6)])
        for _ in range(patience):
            batch: Batch = await connection.next()
            yield batch
            if batch.last:
                return
        connection.left = one.left = True
        raise Cut("the client left")

    async def _pause(self, least: float, most: float) -> None:
        await asyncio.sleep(self._world.weather.between(least, most))


def problems_of(clients: Sequence[Client]) -> list[str]:
    """What clients complain about."""
    return [problem for client in clients for one in client.seen for problem in one.problems]
