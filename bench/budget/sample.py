"""A response in its parts: what is asked, decided, recorded and shown, by the project's own functions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import orjson

from actors.journal import Journal
from actors.orders import CreateOrder
from eventstore import batch_codec
from eventstore.events import Batch, Head, Recorded, Unit
from eventstore.memory import MemoryEventStore, MemoryLiveBus
from eventstore.sql.socket_protocol import encode_request
from runtime import config
from runtime.model import ModelEvent, TextDelta
from runtime.models.chat_stream import ChatReader
from runtime.models.sse import EventParser
from runtime.response import commands as c
from runtime.response.decider import decide
from runtime.response.events import Event
from runtime.response.items import new_response_id
from runtime.response.state import ResponseState, fold
from serve_app.json_body import parse_object
from serve_app.limits import Limits
from serve_app.request_body import read_create
from tests.fakes import render

BODY: Final = orjson.dumps({"model": "bench", "input": "bench", "stream": True})
CATALOG: Final = config.load(None, {config.URL_ENV: "http://127.0.0.1:8000/v1"})
LIMITS: Final = Limits()
WORD: Final = " kite"
SAID: Final = 50
"""Deltas that were said, each in a commit of its own, before the one that is measured."""
_ANSWER: Final = render.Answer("bench", (render.Item("message", (WORD,)),), "stop")
UPSTREAM: Final = render.frames("chat", _ANSWER).frames
"""What an upstream sends for an answer of one delta."""
ROLE, DELTA, *_ = UPSTREAM
"""The first two: what comes before the delta, and the delta."""

_AT: Final = 1_800_000_000
_HOST: Final = "host-0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Step:
    """A command, where it found the response, and what followed."""

    command: c.Command
    state: ResponseState
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit of a response holds."""

    steps: Sequence[Step]
    state: ResponseState
    """After it."""
    unit: Unit
    head: Head | None
    """Before it."""
    batch: Batch
    """What it showed."""
    order: bytes
    """The unit on its way to the log's owner."""
    message: bytes
    """The batch on its way to followers."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What is measured."""

    order: CreateOrder
    response: Sequence[Commit]
    """All commits of a response of one delta: its creation, and everything from there to its end."""
    delta: Commit
    """One more delta of a response that goes on."""


class _Store(MemoryEventStore):
    """Remembers its units."""

    def __init__(self) -> None:
        super().__init__()
        self.units: list[Unit] = []

    async def append(self, unit: Unit) -> Sequence[Recorded]:
        """See `EventStore`."""
        self.units.append(unit)
        return await super().append(unit)


class _Bus(MemoryLiveBus):
    """Remembers its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Batch] = []

    def publish(self, batch: Batch) -> None:
        """See `LiveBus`."""
        self.batches.append(batch)


async def make() -> Sample:
    """The sample, as a host makes it of a request and of its upstream's answer."""
    asked = read_create(parse_object(BODY), CATALOG, LIMITS, len(BODY))
    model = asked.request.model
    create = c.Create(
        id=new_response_id(os.urandom(16)), project="default", key_id="key_0123456789abcdef", at=_AT,
        request=asked.request, agent=CATALOG.resolve(model).public(), code="0.1.0",
    )  # fmt: skip
    begun = (create, c.Activate(_HOST, f"response-actors-{_HOST}", "0" * 56, os.getpid()))
    called = c.BeginCall("first", CATALOG.resolve(model).upstream.name, "req_0123456789abcdef", "00" * 32)
    said = read(EventParser(), ChatReader(), b"".join(UPSTREAM))
    more = (c.RecordOutput((TextDelta(WORD),)),)
    # Its first delta comes with the item that it opens.
    opened = (called, c.RecordOutput(tuple(said[:2])))
    whole = (called, c.RecordOutput(tuple(said)), c.Finish(_AT))
    long = await _record(create.id, begun, opened, *[more] * SAID)
    return Sample(CreateOrder(create), await _record(create.id, begun, whole), long[-1])


def read(parser: EventParser, reader: ChatReader, data: bytes) -> list[ModelEvent]:
    """What a read of the upstream's answer says."""
    for event in parser.feed(data):
        reader.feed(event)
    return reader.take()


def moved(unit: Unit, stream: str, version: int) -> Unit:
    """The same unit for a stream that stands at `version`."""
    (append,) = unit.appends
    documents = [replace(document, stream=stream) for document in unit.documents]
    return replace(unit, appends=[replace(append, stream=stream, expected=version)], documents=documents)


async def _record(response_id: str, *commits: Sequence[c.Command]) -> list[Commit]:
    store, bus = _Store(), _Bus()
    journal = Journal(store, bus, asyncio.sleep, response_id, owner=_HOST)
    made: list[Commit] = []
    for commands in commits:
        state, head = journal.state, await store.head(response_id)
        steps: list[Step] = []
        for command in commands:
            events = decide(command, state)
            steps.append(Step(command, state, events))
            state = fold(events, state)
        await journal.record(*commands)
        unit, batch = store.units[-1], bus.batches[-1]
        order, message = encode_request(1, unit), b"".join(batch_codec.encode(batch))
        made.append(Commit(steps, journal.state, unit, head, batch, order, message))
    return made
