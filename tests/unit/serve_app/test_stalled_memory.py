"""What a replica holds for clients that take nothing of a long answer."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest

from eventstore.events import NO_STREAM, Append, NewStream, Unit
from eventstore.ports import EventStore
from runtime.response import events as e
from runtime.response.codec import SCHEMA, encode
from runtime.response.decider import decide
from runtime.response.replay import ResponseReplay
from runtime.response.state import INITIAL, fold
from serve_app import open_calls
from serve_app.limits import Limits
from tests.running import ACTIVATE, FINISH, RESPONSE_ID, USAGE, begin, create
from tests.unit.serve_app.served import LOOPBACK, events_of, served, until

CLIENTS = 2
WORD = "y" * 8000
DELTAS = 500
BATCH = 10
TAKEN = 3 << 20
"""What the sockets on the way take, of 4 MB."""
EACH = 1 << 20
"""Some copies of a batch of 80 kB; the words that were taken are three times as much."""


async def record_long_answer(store: EventStore) -> None:
    """As its actor would have: some words a commit."""
    state, version = INITIAL, NO_STREAM

    async def record(events: Sequence[e.Event]) -> None:
        nonlocal state, version
        new = NewStream("response", "default", "completed") if version == NO_STREAM else None
        encoded = [encode(event) for event in events]
        [recorded] = await store.append(Unit([Append(RESPONSE_ID, version, 1, encoded, SCHEMA, new)]))
        state, version = fold(events, state), recorded.last_version

    for command in (create(), ACTIVATE, begin()):
        await record(decide(command, state))
    await record([e.ItemStarted(kind="message")])
    for _ in range(DELTAS // BATCH):
        await record([e.TextAppended(deltas=(WORD,) * BATCH)])
    await record([e.ItemEnded(status="completed"), e.ModelCallEnded(finish="stop", usage=USAGE)])
    await record(decide(FINISH, state))


class Client:
    """Takes so many bytes, then nothing until it is told to."""

    def __init__(self) -> None:
        self.took = 0
        self.body: list[bytes] = []
        self.goes_on = asyncio.Event()
        self.waits = False

    async def send(self, message: Any) -> None:
        """Take a piece of the answer."""
        piece = message.get("body", b"")
        self.took += len(piece)
        if self.took > TAKEN and not self.goes_on.is_set():
            self.waits = True
            await self.goes_on.wait()
        self.body.append(piece)


SCOPE = {
    "type": "http",
    "method": "GET",
    "path": f"/v1/responses/{RESPONSE_ID}",
    "query_string": b"stream=true",
    "headers": [(b"host", b"localhost")],
    "client": LOOPBACK,
}


async def test_who_takes_nothing_of_a_long_answer_costs_little_and_may_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not what it took already, neither as words nor as frames; and it misses nothing for that."""
    monkeypatch.setattr(open_calls, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(open_calls, "RELIEF_SECONDS", 0.2)
    async with served(limits=Limits(stall=3600)) as server:
        await record_long_answer(server.cluster.store)
        clients = [Client() for _ in range(CLIENTS)]
        gc.collect()
        tracemalloc.start()
        try:
            never = asyncio.Queue[Any]()
            tasks = [asyncio.create_task(server.api(SCOPE, never.get, client.send)) for client in clients]
            await until(lambda: all(client.waits for client in clients))
            for client in clients[1:]:
                client.body.clear()
            first = sum(map(len, clients[0].body))
            await until(lambda: tracemalloc.get_traced_memory()[0] - first < CLIENTS * EACH)
        finally:
            tracemalloc.stop()
        assert server.api.open.streams == CLIENTS
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks[1:], return_exceptions=True)
        clients[0].goes_on.set()
        await tasks[0]
        events = events_of(b"".join(clients[0].body))
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[-1]["response"]["output"][0]["content"][0]["text"] == WORD * DELTAS


async def test_a_fold_that_was_let_go_between_two_batches_is_made_anew() -> None:
    """What follows is what would have followed."""
    async with served() as server:
        await record_long_answer(server.cluster.store)
        whole = [batch async for batch in ResponseReplay(server.cluster.store, RESPONSE_ID).read(-1)]
        relieved = ResponseReplay(server.cluster.store, RESPONSE_ID)
        told = []
        async for batch in relieved.read(-1):
            told.append(batch)
            if len(told) % 20 == 0:
                relieved.relieve()
        assert told == whole
