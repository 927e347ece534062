"""A response actor in a small world: log and bus in memory, virtual time, a model that keeps to a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from actors.response_actor import ActorIdentity, ActorPorts, ResponseActor
from eventstore.errors import OutcomeUnknown, StoreUnavailable
from eventstore.events import Batch, Head, Record, Recorded, Unit
from eventstore.follow import follow
from eventstore.memory import MemoryEventStore, MemoryLiveBus
from eventstore.ports import EventStore
from runtime.catalog import Limits, Resolved, Upstream
from runtime.model import (
    ArgumentsDelta,
    CallEnded,
    CallStarted,
    FinishReason,
    ItemClosed,
    ItemOpened,
    Model,
    ModelError,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    TextDelta,
    Usage,
)
from runtime.response.codec import decode
from runtime.response.commands import Create
from runtime.response.events import Event
from runtime.response.replay import ResponseReplay
from runtime.response.request import ResponseRequest
from runtime.sealing import Seal
from runtime.tool import Tool

ID = "resp_" + "0" * 32
TERMINAL = ("response.completed", "response.failed", "response.incomplete")

Step = Sequence[ModelEvent] | ModelError | asyncio.Event | float
"""One network read of the model's; or an error; or a wait for an event, or for so many seconds."""
Script = Callable[[ModelRequest, int], Iterable[Step]]
"""What the model says to a request; calls are counted from 0."""

ENDED = CallEnded("stop", Usage(3, 2))
BUSY = ModelError("rate_limit_exceeded", "The upstream is busy.", retryable=True)


class ScriptedModel:
    """The model port, by a script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.requests: list[ModelRequest] = []
        self.batches_read = 0
        self.open_calls = 0

    @asynccontextmanager
    async def call(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Sequence[ModelEvent]]]:
        self.requests.append(request)
        self.open_calls += 1
        try:
            steps = iter(self._script(request, len(self.requests) - 1))
            first = next(steps)
            if isinstance(first, ModelError):
                raise first
            async with aclosing(self._batches(first, steps)) as batches:
                yield batches
        finally:
            self.open_calls -= 1

    async def _batches(self, first: Step, steps: Iterable[Step]) -> AsyncGenerator[Sequence[ModelEvent]]:
        yield [CallStarted("up_1", "0" * 64)]
        for step in (first, *steps):
            match step:
                case ModelError():
                    raise step
                case asyncio.Event():
                    await step.wait()
                case float() | int():
                    await asyncio.sleep(step)
                case _:
                    self.batches_read += 1
                    yield step

    async def models(self) -> Sequence[str]:
        return ["scripted"]

    async def aclose(self) -> None:
        """Nothing is open."""


def says(*texts: str, finish: FinishReason = "stop", apart: float | None = None) -> list[Step]:
    """A message in these deltas; all in one read, or `apart` seconds from each other."""
    events: list[ModelEvent] = [ItemOpened("message"), *map(TextDelta, texts)]
    if finish == "stop":
        events.append(ItemClosed())
    return in_reads([*events, CallEnded(finish, Usage(3, len(texts)))], apart)


def in_reads(events: Sequence[ModelEvent], apart: float | None) -> list[Step]:
    """All in one read, or one event a read, `apart` seconds from each other."""
    if apart is None:
        return [events]
    steps: list[Step] = []
    for event in events:
        steps += [[event], apart]
    return steps


def always(*steps: Step) -> Script:
    return lambda request, number: steps


def in_turn(*answers: Sequence[Step]) -> Script:
    """The first answer to the first call, and so on."""
    return lambda request, number: answers[number]


class World:
    """A log, a bus, and the ports of hosts in them.  What the bus tells must be in the log already."""

    def __init__(self, model: ScriptedModel, tools: Mapping[str, Tool] | None = None) -> None:
        self.model = model
        self.tools = tools or {}
        self.store = MemoryEventStore(now=lambda: 0)
        self.told: list[Batch] = []
        self.bus = MemoryLiveBus(self._tell)

    def _tell(self, batch: Batch) -> Iterable[Batch]:
        head = self.store._streams[batch.channel].head
        assert batch.version <= head.version, "shown before it was committed"
        self.told.append(batch)
        return (batch,)

    def ports(self, host: str = "host-1", store: EventStore | None = None) -> ActorPorts:
        def open_model(agent: Mapping[str, Any]) -> Model:
            return self.model

        return ActorPorts(
            store=store or self.store,
            bus=self.bus,
            open_model=open_model,
            now=lambda: asyncio.get_running_loop().time(),
            sleep=asyncio.sleep,
            host=ActorIdentity(host, host, "node-1", 1),
            seal=Seal("test"),
            open_tool=lambda tool: self.tools[tool["name"]],
        )

    def actor(self, host: str = "host-1", store: EventStore | None = None, id: str = ID) -> ResponseActor:
        return ResponseActor(self.ports(host, store), id)

    async def head(self, id: str = ID) -> Head:
        head = await self.store.head(id)
        assert head is not None
        return head

    async def events(self, id: str = ID) -> list[Event]:
        return [event async for record in self.store.read(id) for event in decode(record)]

    async def commits(self, id: str = ID) -> list[tuple[str, ...]]:
        return [record.types async for record in self.store.read(id)]

    async def shown(self, id: str = ID) -> list[dict[str, Any]]:
        """What somebody who replays the log is shown."""
        replay = ResponseReplay(self.store, id)
        return [wire for batch in [b async for b in replay.read(-1)] for wire in parsed(batch)]

    async def follow(self, id: str = ID) -> list[dict[str, Any]]:
        """What somebody is shown who follows from the beginning to the end."""
        seen: list[dict[str, Any]] = []
        async with (
            self.bus.subscribe(id) as live,
            aclosing(follow(ResponseReplay(self.store, id), live)) as batches,
        ):
            async for batch in batches:
                seen += parsed(batch) if batch else []
        return seen


def parsed(batch: Batch) -> list[dict[str, Any]]:
    return [json.loads(frame.split(b"data: ", 1)[1]) for frame in batch.frames or ()]


def create(
    *,
    id: str = ID,
    resume: str = "prompt",
    retries: int = 2,
    project: str = "default",
    queued: bool = False,
    limits: Limits | None = None,
    seconds: float | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    **request: Any,
) -> Create:
    """A request to say something."""
    question = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Count."}]}
    agent = Resolved(
        id="scripted",
        upstream=Upstream("scripted", "openai_chat", max_retries=retries),
        model="scripted",
        resume=resume,  # type: ignore[arg-type]  # tests pass one of the four
        limits=limits or Limits(seconds=seconds),
        tools=tools,
    )
    fields = {"model": "scripted", "input": (question,), "tools": request.pop("request_tools", ())} | request
    return Create(id, project, "key_1", 0, ResponseRequest(**fields), agent.public(), queued=queued)


def text_of(shown: Sequence[Mapping[str, Any]]) -> str:
    """All text of the answer, as its deltas tell it."""
    return "".join(event["delta"] for event in shown if event["type"] == "response.output_text.delta")


def check_shown(shown: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What holds for whatever anybody is shown of a whole response; its final object."""
    assert [event["sequence_number"] for event in shown] == list(range(len(shown)))
    ends = [event["type"] for event in shown if event["type"] in TERMINAL]
    assert len(ends) == 1
    assert shown[-1]["type"] == ends[0]
    final: Mapping[str, Any] = shown[-1]["response"]
    texts = [
        part["text"]
        for item in final["output"]
        for part in item.get("content", ())
        if part["type"] == "output_text"
    ]
    assert text_of(shown) == "".join(texts)
    return final


@dataclass
class CrashingStore:
    """One host's way to the log.  At its append number `at` the host dies: it hears nothing ever again."""

    log: MemoryEventStore
    at: int
    committed: bool
    """Whether the append still happens."""
    appends: int = 0
    died: asyncio.Event = field(default_factory=asyncio.Event)
    silence: asyncio.Event = field(default_factory=asyncio.Event)

    async def append(self, unit: Unit) -> Sequence[Recorded]:
        self.appends += 1
        if self.appends - 1 < self.at:
            return await self.log.append(unit)
        if self.appends - 1 == self.at and self.committed:
            await self.log.append(unit)
        self.died.set()
        await self.silence.wait()
        raise StoreUnavailable("the test is over")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


@dataclass
class FlakyStore:
    """A way to the log on which appends fail as `faults` say, one after the other, and then no more.

    `away`: nothing happened; `lost`: it did not happen, but nobody can tell; `late`: it happened, but nobody
    can tell; `later`: it happens only when the store is asked again.
    """

    log: MemoryEventStore
    faults: list[str]
    blind: bool = False
    """Whether nothing can be read on it."""
    appends: int = 0
    late: list[Unit] = field(default_factory=list)

    def read(self, stream: str, after: int = -1) -> AsyncIterator[Record]:
        if self.blind:
            raise StoreUnavailable("the test says so")
        return self.log.read(stream, after)

    async def append(self, unit: Unit) -> Sequence[Recorded]:
        self.appends += 1
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "away":
            raise StoreUnavailable("the test says so")
        if fault in ("lost", "later"):
            self.late += [unit] if fault == "later" else []
            raise OutcomeUnknown("the test says so")
        while self.late:
            await self.log.append(self.late.pop())
        recorded = await self.log.append(unit)
        if fault == "late":
            raise OutcomeUnknown("the test says so")
        return recorded

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


@dataclass
class LateTake:
    """A way to the log on which something else happens before a stream is taken."""

    log: MemoryEventStore
    before: Callable[[], Awaitable[None]]

    async def take(self, stream: str, *, epoch: int, owner: str | None, state: str | None = None) -> Head:
        await self.before()
        return await self.log.take(stream, epoch=epoch, owner=owner, state=state)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


@dataclass
class SlowStore:
    """A way to the log on which the appends from number `since` on wait until they are let go."""

    log: MemoryEventStore
    since: int = 0
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    appends: int = 0

    async def append(self, unit: Unit) -> Sequence[Recorded]:
        self.appends += 1
        if self.appends > self.since:
            self.waiting.set()
            await self.let_go.wait()
        return await self.log.append(unit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


async def settle() -> None:
    """Let everything run that can run without time passing."""
    for _ in range(100):
        await asyncio.sleep(0)


async def live_through(
    world: World, command: Create, stores: Sequence[EventStore | None]
) -> list[dict[str, Any]]:
    """Create and run a response on hosts that die one after the other; what its follower saw.

    Each store is one host's way to the log; the last must not crash.
    """
    follower = asyncio.create_task(world.follow())
    await asyncio.sleep(0)
    for number, store in enumerate(stores):
        actor = world.actor(f"host-{number}", store)
        head = await world.store.head(ID)
        life = asyncio.create_task(
            _create_and_run(actor, command) if head is None else _resume_and_run(actor, head)
        )
        if isinstance(store, CrashingStore):
            death = asyncio.create_task(store.died.wait())
            await asyncio.wait({life, death}, return_when=asyncio.FIRST_COMPLETED)
            death.cancel()
            if store.died.is_set():
                life.cancel()
                await asyncio.wait({life})
                continue
        await life
    assert (await world.head()).owner is None, "what is over belongs to nobody"
    return await follower


async def _create_and_run(actor: ResponseActor, command: Create) -> None:
    await actor.create(command, start=True)
    await actor.run()


async def _resume_and_run(actor: ResponseActor, head: Head) -> None:
    await actor.resume(head)
    await actor.run()


def call_of(name: str, *arguments: str, call_id: str = "call_1") -> list[ModelEvent]:
    """A function call in these deltas."""
    opened = ItemOpened("function_call", name=name, call_id=call_id)
    return [opened, *map(ArgumentsDelta, arguments), ItemClosed()]


def thought(*texts: str) -> list[ModelEvent]:
    """A reasoning item in these deltas."""
    return [ItemOpened("reasoning"), *map(ReasoningDelta, texts), ItemClosed()]


async def run(world: World, **request: Any) -> None:
    """Create a response and run it to its end."""
    command = create(**request)
    actor = world.actor(id=command.id)
    await actor.create(command, start=True)
    await actor.run()
