"""The journal: the one writer's hand on a response's stream.

Commands go in; their events are committed, folded and only then shown.  A journal that lost its stream to a
later activation never shows anything again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import repeat
from typing import Final

from actors.attachment import Attachment
from eventstore.errors import EventStoreError, Fenced, OutcomeUnknown, StoreUnavailable, WrongExpectedVersion
from eventstore.events import NO_STREAM, Append, Batch, Claim, Document, HeadChange, NewStream, Recorded, Unit
from eventstore.meter import METER
from eventstore.ports import EventStore, LiveBus
from eventstore.unit import place_of
from runtime.response import codec, history, recorder
from runtime.response.commands import Command
from runtime.response.decider import decide
from runtime.response.events import Event
from runtime.response.standing import STORED, TRANSIENT, standing
from runtime.response.state import INITIAL, ResponseState, Status

PATIENT: Final = (0.05, 0.1, 0.2, 0.5, 1.0, *repeat(2.0, 300))
"""Seconds between the tries to reach a store that is away: ten minutes of them, then recovery's turn."""

BRIEF: Final = (0.05, 0.2, 0.5)
"""The same for whoever has a client waiting."""

_APPENDED: Final = METER.distribution("append_seconds", "How long a response waited for a commit.")
_TRIES: Final = METER.counter("append_retries", "Appends that were tried again: the log was away.")
_FENCED: Final = METER.counter("activations_lost", "Activations that ended because another one took over.")
_CAME_TO: Final = METER.counter("responses", "Responses that came to a status.", "status")


class ActivationLost(Exception):
    """Another activation owns the stream.  This one stops, having shown nothing since."""

    def __init__(self, stream: str, reason: str) -> None:
        super().__init__(stream, reason)
        self.stream, self.reason = stream, reason

    def __str__(self) -> str:
        return f"the activation of {self.stream!r} is over: {self.reason}"


class Journal:
    """Records commands for one stream, one commit at a time, in the order in which they came."""

    def __init__(
        self,
        store: EventStore,
        bus: LiveBus,
        sleep: Callable[[float], Awaitable[None]],
        stream: str,
        *,
        state: ResponseState = INITIAL,
        version: int = NO_STREAM,
        epoch: int = 1,
        owner: str | None = None,
        attachment: Attachment | None = None,
    ) -> None:
        self.stream = stream
        self.epoch = epoch
        self.owner = owner
        self._attachment = attachment
        self._store = store
        self._bus = bus
        self._sleep = sleep
        self._state = state
        self._version = version
        self._turn = asyncio.Lock()
        self._lost: str | None = None

    @property
    def state(self) -> ResponseState:
        """The fold of everything recorded."""
        return self._state

    @property
    def version(self) -> int:
        """Version of the last event recorded."""
        return self._version

    async def record(
        self, *commands: Command, patience: Sequence[float] = PATIENT, claims: Sequence[Claim] = ()
    ) -> None:
        """Decide, commit, fold, publish: in this order, and all of it or nothing.

        A caller that is cancelled leaves; the commit goes on without it.  `patience` are the pauses between
        tries while the store is away.  Raises `IllegalCommand`, `ActivationLost`, `StoreUnavailable` once
        patience is at its end; of a creation `ClaimTaken`, what a conversation refuses it for, and
        `WrongExpectedVersion` where the stream is there already or its conversation changed.
        """
        # Whoever cancels the caller half way must not leave a commit behind whose outcome nobody knows.
        commit = asyncio.create_task(self._obey(commands, patience, claims))
        commit.add_done_callback(_look_at)
        await asyncio.shield(commit)

    async def settled(self) -> None:
        """Wait for the commit that is under way, if there is one."""
        async with self._turn:
            pass

    def close(self) -> None:
        """Record nothing any more; a commit that is being tried again is given up."""
        self._lost = self._lost or "it was stopped"

    async def _obey(
        self, commands: Sequence[Command], patience: Sequence[float], claims: Sequence[Claim]
    ) -> None:
        async with self._turn:
            if self._lost is not None:
                raise ActivationLost(self.stream, self._lost)
            draft = _Draft(self.stream, self._state)
            for command in commands:
                draft.obey(command)
            if not draft.events:
                return
            unit = draft.unit(self._version, self.epoch, self.owner, claims)
            recorded, *beside = await self._commit(unit, draft, patience)
            if draft.state.status is not self._state.status:
                _CAME_TO.add(1, draft.state.status.value)
            self._state, self._version = draft.state, recorded.last_version
            self._bus.publish(draft.batch(recorded))
            for other in beside:
                self._bus.publish(shows_nothing(other, draft.state.project))

    async def _commit(self, unit: Unit, draft: _Draft, patience: Sequence[float]) -> Sequence[Recorded]:
        """Commit exactly once, however often the store has to be asked."""
        (append,) = unit.appends
        unsure = False
        refusal: EventStoreError | None = None
        for pause in patience:
            if self._lost is not None:
                raise ActivationLost(self.stream, self._lost)
            try:
                # A commit of which nobody heard may have happened, also a moment after it was looked for.
                landed = await self._landed(append) if unsure else None
                if landed is not None:
                    return [landed]
                if refusal is not None:
                    raise self._refused(refusal, append)
                return await self._append(unit, draft)
            except (Fenced, WrongExpectedVersion) as error:
                if error.stream != self.stream and append.new is None:
                    continue  # The conversation changed; this stream is still ours, and ends all the same.
                if not unsure or refusal is not None:
                    raise self._refused(error, append) from error
                refusal = error
                continue
            except StoreUnavailable as error:
                _TRIES.add()
                unsure = unsure or isinstance(error, OutcomeUnknown)
            await self._sleep(pause)
        if refusal is not None:
            with suppress(StoreUnavailable):
                if (landed := await self._landed(append)) is not None:
                    return [landed]
                raise self._refused(refusal, append)
        error_type = OutcomeUnknown if unsure else StoreUnavailable
        raise error_type(f"{self.stream!r} could not be written for {sum(patience):g} s")

    async def _append(self, unit: Unit, draft: _Draft) -> Sequence[Recorded]:
        if self._attachment is not None:
            unit = await self._attachment.joined(unit, draft.before, draft.state)
        began = time.perf_counter()
        recorded = await self._store.append(unit)
        _APPENDED.observe(time.perf_counter() - began)
        return recorded

    async def _landed(self, append: Append) -> Recorded | None:
        """Where this very append came to lie, if it did."""
        async for record in self._store.read(self.stream, append.expected):
            return place_of(append, record)
        return None

    def _refused(self, error: EventStoreError, append: Append) -> Exception:
        self._lost = str(error)
        if append.new is not None:
            return error
        _FENCED.add()
        return ActivationLost(self.stream, self._lost)


class _Draft:
    """What one commit will record and show."""

    def __init__(self, stream: str, state: ResponseState) -> None:
        self.events: list[Event] = []
        self.before = self.state = state
        self._stream = stream
        self._frames: list[bytes] = []

    def obey(self, command: Command) -> None:
        """Add what follows from the command."""
        events = decide(command, self.state)
        frames, self.state = recorder.shown(self.state, events)
        self._frames += frames
        self.events += events

    def unit(self, version: int, epoch: int, owner: str | None, claims: Sequence[Claim]) -> Unit:
        """What is to be committed behind `version`."""
        state, ends = self.state, self.state.is_over and not self.before.is_over
        append = Append(
            self._stream,
            version,
            epoch,
            [codec.encode(event) for event in self.events],
            schema=codec.SCHEMA,
            new=_new_stream(state, owner) if version == NO_STREAM else None,
            change=HeadChange(
                state=standing(state),  # Also where it stands: a host may have handed it back to the queue.
                release=state.is_over,
                attributes=_attributes(state) if ends else None,
            ),
            erase=state.status == Status.ERASED,
        )
        kept = history.documents(state) if ends else {}
        documents = [Document(self._stream, kind, data) for kind, data in kept.items()]
        return Unit([append], claims, documents)

    def batch(self, recorded: Recorded) -> Batch:
        """What followers are told, now that it is committed."""
        return recorder.batch_of(self.before, self.state, self._frames, recorded)


def shows_nothing(recorded: Recorded, tenant: str) -> Batch:
    """Tells those who read the log in its order that they need not wait for this position."""
    return Batch(
        recorded.stream,
        first=0,
        count=0,
        frames=(),
        version=recorded.last_version,
        position=recorded.position,
        tenant=tenant,
    )


def _new_stream(state: ResponseState, owner: str | None) -> NewStream:
    return NewStream(
        # What is erased soon after its end is neither listed nor continued.
        category=STORED if state.request.store else TRANSIENT,
        tenant=state.project,
        state=standing(state),
        owner=owner,
        parent=state.request.previous_response_id,
        attributes=_attributes(state),
    )


def _attributes(state: ResponseState) -> dict[str, str]:
    """What a response can be found and shown by without reading it."""
    created = state.created
    assert created is not None
    attributes = {
        "model": created.request.model,
        "created_at": str(created.created_at),
    }
    # Only where it is so: what every head repeats is a fourteenth of it.
    if created.request.background:
        attributes["background"] = "true"
    isolation = created.agent.get("isolation")
    if isolation is not None:
        attributes["isolation"] = str(isolation)
    if state.ending is not None:
        attributes["ended_at"] = str(state.ending.at)
    return attributes


def _look_at(commit: asyncio.Task[None]) -> None:
    """Take note of how a commit went that nobody waits for any more: its error is in the journal."""
    if not commit.cancelled():
        commit.exception()
