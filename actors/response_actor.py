"""The response actor: the one writer of a response's stream, from its creation to its end.

A plain class: what runs it (`actors.host`) and where is none of its business.  Its mailbox takes create,
resume, cancel and delete, one at a time; `run` goes on beside them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from actors.aggregate_writer import RACES_MAX
from actors.attachment import Attachment
from actors.context import Context
from actors.journal import BRIEF, ActivationLost, Journal, shows_nothing
from actors.orders import RuntimeUnavailable, UnknownResponse
from eventstore.errors import Fenced, LogCorrupted, OutcomeUnknown, StoreUnavailable, WrongExpectedVersion
from eventstore.events import Append, Claim, Head, HeadChange, Unit
from eventstore.ports import EventStore, LiveBus
from runtime.agent_loop import AgentLoop
from runtime.aggregate import Refused
from runtime.model import JSON, Model, ModelError
from runtime.python_tool import open_tool
from runtime.response import codec, history
from runtime.response.commands import Activate, Cancel, Command, Create, Erase, Fail, idempotency_scope
from runtime.response.errors import PreviousResponseInProgress, PreviousResponseNotFound, ResponseError
from runtime.response.events import ActivationStarted, Erased
from runtime.response.replay import fold_stream
from runtime.response.request import ResponseRequest
from runtime.response.state import ResponseState, Status
from runtime.sealing import Seal
from runtime.tool import Tool

__all__ = ["ActivationLost", "ActorIdentity", "ActorPorts", "ResponseActor"]

ACTIVATIONS_MAX: Final = 8
"""A response whose hosts keep dying under it is ended, before it takes down more of them."""

_ENDED: Final = (Status.COMPLETED, Status.FAILED, Status.INCOMPLETE, Status.CANCELLED)

CREATE_MAX: Final = 10.0
"""Seconds for which somebody who creates is kept waiting while the store does not answer."""

WAIT_MAX: Final = 5.0
"""Seconds for which somebody who cancels or deletes is kept waiting while the store is away."""

TAKES_MAX: Final = 4
"""How often a stream is looked up again because somebody else took it first."""


@dataclass(frozen=True, slots=True)
class ActorIdentity:
    """Who runs responses here; recorded with each activation."""

    host: str
    """Incarnation id of the host: the owner of the streams it runs."""
    actor: str
    """Name of the Ray actor."""
    node: str
    pid: int


@dataclass(frozen=True, slots=True)
class ActorPorts:
    """What a response actor needs of the world."""

    store: EventStore
    bus: LiveBus
    open_model: Callable[[Mapping[str, JSON]], Model]
    """The model of a recorded agent configuration.  Whoever gives it closes it.  Raises `ModelError`."""
    now: Callable[[], float]
    """Seconds since 1970 UTC."""
    sleep: Callable[[float], Awaitable[None]]
    host: ActorIdentity
    seal: Seal
    """What clients keep for us is sealed with it."""
    open_tool: Callable[[Mapping[str, JSON]], Tool] = open_tool
    """A tool of a recorded agent configuration that hosts run.  Raises `ToolError`."""


class ResponseActor:
    """One response."""

    def __init__(self, ports: ActorPorts, id: str) -> None:
        self.id = id
        self._ports = ports
        self._reading = Context(ports.store)
        self._mailbox = asyncio.Lock()
        self._journal: Journal | None = None
        self._context: list[history.Item] | None = None
        self._takeover: list[Command] = []
        self._loop: asyncio.Task[None] | None = None

    def is_over(self) -> bool:
        """Whether its end is recorded, as far as this activation knows."""
        state = self.state()
        return state is not None and state.is_over

    def state(self) -> ResponseState | None:
        """What is recorded, as far as this actor has read or written it; None before it did either."""
        return self._journal.state if self._journal else None

    # -- The mailbox ---------------------------------------------------------------------------------------

    async def create(self, command: Create, *, start: bool) -> None:
        """Record the response; with `start`, this host owns it and `run` runs it.

        Nothing is written on refusal.  Whoever asks again with the same request succeeds, and only the first
        one runs it.  Raises `PreviousResponseNotFound`, `PreviousResponseInProgress`, `InvalidInput`,
        `StoreUnavailable`, `OutcomeUnknown` (nobody runs it then, even if it was made), `ClaimTaken` where
        another response was made with its idempotency key, `UnknownConversation`, `ConversationLocked`,
        `RuntimeUnavailable` where its conversation kept changing, and `WrongExpectedVersion` where the id
        belongs to another request.
        """
        async with self._mailbox:
            for _ in range(RACES_MAX):
                try:
                    return await self._create(command, self._ports.host.host if start else None)
                except WrongExpectedVersion as moved:
                    if moved.stream == self.id:
                        raise
            raise RuntimeUnavailable(f"others kept changing {command.request.conversation!r}")

    async def resume(self, head: Head) -> None:
        """Take over the stream that stands at `head`, in a new epoch; `run` records that and goes on with it.

        Raises `UnknownEvent` (and leaves the stream alone), `Fenced` where somebody else was faster,
        `StoreUnavailable`.
        """
        async with self._mailbox:
            commands: list[Command] = [self._activate()]
            state, _ = read = await fold_stream(self._ports.store, self.id)
            if state.is_over:
                await self._put_down(state, head.epoch)
                return
            try:
                attachment = self._attachment(state.request)
                context = await self._reading.read(state.request, state.project, attachment)
            except (PreviousResponseNotFound, PreviousResponseInProgress) as gone:
                context = []
                commands.append(Fail(self._at(), "previous_response_not_found", str(gone)))
            if state.activation is not None and head.epoch >= ACTIVATIONS_MAX:
                message = f"The response was interrupted {ACTIVATIONS_MAX} times. Create it anew."
                commands.append(Fail(self._at(), "interrupted", message))
            journal = await self._take(head, self._ports.host.host, read)
            if journal.state.is_over:
                await self._put_down(journal.state, journal.epoch)
                return
            self._journal, self._context, self._takeover = journal, context, commands

    async def cancel(self, by: str) -> None:
        """End the response now.  Where it is over already nothing happens: its first end stands.

        Raises `UnknownResponse`, `UnknownEvent`, `ActivationLost`, `StoreUnavailable`.
        """
        async with self._mailbox:
            journal = await self._hold(unless=_ENDED)
            if journal is not None:
                await self._end(journal, by)

    async def delete(self, by: str, reason: str = "deleted by its owner") -> None:
        """Erase the response, cancelled first if it runs.  One that is erased already stays so.

        Raises what `cancel` raises.
        """
        async with self._mailbox:
            try:
                journal = await self._hold(unless=(Status.ERASED,))
            except LogCorrupted:
                head = await self._ports.store.head(self.id)
                if head is None or head.state not in _ENDED:
                    raise
                await self._erase_unread(head, Erased(self._at(), by, reason))
                return
            if journal is not None:
                await self._end(journal, by)
                await self._in_time(journal, Erase(self._at(), by, reason))

    async def run(self) -> None:
        """Run the response until it is over; at once where this actor does not own it.

        Cancelled, it stops as a crash would stop it.  Raises `ActivationLost` where another activation took
        over, having shown nothing since.
        """
        journal, context, state = self._journal, self._context, self.state()
        if journal is None or context is None or state is None or state.is_over or self._loop is not None:
            return None
        self._loop = asyncio.create_task(self._proceed(journal, context))
        try:
            await asyncio.wait({self._loop})
            if not self._loop.cancelled():
                return self._loop.result()
            async with self._mailbox:  # Whoever stopped it also ends it.
                await journal.settled()
                if not journal.state.is_over:
                    raise StoreUnavailable(f"the end of {self.id!r} could not be recorded")
                return None
        except asyncio.CancelledError:
            journal.close()
            self._loop.cancel()
            await asyncio.wait({self._loop})
            raise

    # -- How -----------------------------------------------------------------------------------------------

    async def _create(self, command: Create, host: str | None) -> None:
        attachment = self._attachment(command.request)
        context = None
        try:
            command, context = await self._reading.prepare(command, attachment)
            journal = self._open(owner=host, attachment=attachment)
            commands: list[Command] = [command] if host is None else [command, self._activate()]
            await self._begin(journal, commands, _claims(command))
        except (ResponseError, Refused, WrongExpectedVersion) as refusal:
            if isinstance(refusal, WrongExpectedVersion) and refusal.stream != self.id:
                raise
            # It may be there already, and what went on since may be why it is refused now.
            found = await self._find_same(command, host)
            if found is None:
                raise
            journal = found
        if journal.owner is not None and context is not None:
            self._journal, self._context = journal, context

    async def _begin(self, journal: Journal, commands: Sequence[Command], claims: Sequence[Claim]) -> None:
        try:
            async with asyncio.timeout(CREATE_MAX):
                await journal.record(*commands, patience=BRIEF, claims=claims)
        except TimeoutError:
            journal.close()
            raise OutcomeUnknown(f"{self.id!r} could not be written for {CREATE_MAX:g} s") from None

    async def _proceed(self, journal: Journal, context: list[history.Item]) -> None:
        ports = self._ports
        if self._takeover:
            await journal.record(*self._takeover)
            if journal.state.is_over:
                return
        try:
            model = ports.open_model(journal.state.agent)
        except ModelError as error:
            await journal.record(Fail(self._at(), error.code, error.message))
            return
        elapsed = await self._elapsed() if self._takeover else 0.0
        loop = AgentLoop(
            journal,
            context,
            model,
            partial(ports.seal.close, journal.state.project),
            now=ports.now,
            sleep=ports.sleep,
            elapsed=elapsed,
            open_tool=ports.open_tool,
        )
        await loop.run()

    async def _elapsed(self) -> float:
        """Seconds since the response first began to run, on whichever host."""
        async for record in self._ports.store.read(self.id):
            if any(isinstance(event, ActivationStarted) for event in codec.decode(record)):
                return max(0.0, self._ports.now() - record.recorded_at / 1000)
        return 0.0

    async def _end(self, journal: Journal, by: str) -> None:
        """Stop whatever runs, which closes the upstream's connection, and record the end."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait({self._loop})
        await self._in_time(journal, Cancel(self._at(), by))

    async def _in_time(self, journal: Journal, command: Command) -> None:
        """Record it, but let nobody wait for a store that is away; it is recorded once the store is back."""
        try:
            async with asyncio.timeout(WAIT_MAX):
                await journal.record(command)
        except TimeoutError:
            raise StoreUnavailable(f"{self.id!r} could not be written for {WAIT_MAX:g} s") from None

    async def _hold(self, unless: Sequence[str]) -> Journal | None:
        """The journal of this stream, taken over where it is not ours; None in the states of `unless`."""
        for _ in range(TAKES_MAX):
            if self._journal is not None:
                return self._journal
            head = await self._ports.store.head(self.id)
            if head is None or (head.state == Status.ERASED and Status.ERASED not in unless):
                raise UnknownResponse(self.id)
            if head.state in unless:
                return None
            with suppress(Fenced):
                self._journal = await self._take(head, None)
        raise ActivationLost(self.id, "others keep taking it over")

    async def _erase_unread(self, head: Head, erased: Erased) -> None:
        """Erase what cannot be read any more and is over, as its head says: its words go all the same."""
        try:
            async with asyncio.timeout(WAIT_MAX):
                head = await self._raise_epoch(head, None)
                place = (self.id, head.version, head.epoch)
                change = HeadChange(state=Status.ERASED.value)
                append = Append(
                    *place, [codec.encode(erased)], schema=codec.SCHEMA, change=change, erase=True
                )
                (recorded,) = await self._ports.store.append(Unit([append]))
        except (Fenced, WrongExpectedVersion) as moved:
            raise ActivationLost(self.id, str(moved)) from moved
        except TimeoutError:
            raise OutcomeUnknown(f"{self.id!r} could not be written for {WAIT_MAX:g} s") from None
        self._ports.bus.publish(shows_nothing(recorded, head.tenant))

    async def _put_down(self, state: ResponseState, epoch: int) -> None:
        """Have the head say that it is over, and nobody's: it ended while it was taken or handed back."""
        await self._ports.store.take(self.id, epoch=epoch, owner=None, state=state.status.value)

    async def _take(
        self, head: Head, owner: str | None, read: tuple[ResponseState, int] | None = None
    ) -> Journal:
        # What this version cannot read it must not take: another one may be running it.
        state, version = read or await fold_stream(self._ports.store, self.id)
        head = await self._raise_epoch(head, owner)
        # What the former owner recorded in between; from here on it is fenced.
        state, version = await fold_stream(self._ports.store, self.id, state, version)
        attachment = self._attachment(state.request) if state.created is not None else None
        return self._open(state=state, version=version, epoch=head.epoch, owner=owner, attachment=attachment)

    async def _raise_epoch(self, head: Head, owner: str | None) -> Head:
        try:
            return await self._ports.store.take(self.id, epoch=head.epoch, owner=owner)
        except OutcomeUnknown:
            # If two of us believe it was theirs, the first commit tells them apart.
            found = await self._ports.store.head(self.id)
            if found is not None and (found.epoch, found.owner) == (head.epoch + 1, owner):
                return found
            raise

    def _attachment(self, request: ResponseRequest) -> Attachment | None:
        if request.conversation is None:
            return None
        return Attachment(self._ports.store, request.conversation)

    def _open(self, **position: Any) -> Journal:
        return Journal(self._ports.store, self._ports.bus, self._ports.sleep, self.id, **position)

    async def _find_same(self, command: Create, host: str | None) -> Journal | None:
        """The journal of a stream that begins with the same request, or None if it holds another one.

        Its owner is named only if that is this host, which asked before and did not hear the answer.
        """
        head = await self._ports.store.head(self.id)
        state, version = await fold_stream(self._ports.store, self.id)
        if head is None or state.created is None:
            return None
        if (state.project, state.request) != (command.project, command.request):
            return None
        owner = host if (head.owner, head.epoch, head.version) == (host, 1, version) else None
        attachment = self._attachment(state.request)
        return self._open(state=state, version=version, owner=owner, attachment=attachment)

    def _activate(self) -> Activate:
        host = self._ports.host
        return Activate(host.host, host.actor, host.node, host.pid)

    def _at(self) -> int:
        return int(self._ports.now())


def _claims(command: Create) -> list[Claim]:
    asked = command.idempotency
    if asked is None:
        return []
    scope = idempotency_scope(command.project)
    return [Claim(scope, asked.key, asked.fingerprint, command.id, asked.expires_at)]
