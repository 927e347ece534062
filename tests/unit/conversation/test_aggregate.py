"""What is stored of a conversation, and how it is read back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from actors.aggregate_writer import AggregateWriter
from actors.orders import AggregateOrder
from eventstore.events import Document, Record, Unit
from eventstore.memory import MemoryEventStore, MemoryLiveBus
from runtime.aggregate import SNAPSHOT
from runtime.conversation import commands as c
from runtime.conversation.aggregate import CATEGORY, CONVERSATION, LOCKED, OPEN
from runtime.conversation.state import ConversationState
from tests.unit.conversation.kit import ATTACH, CREATE, ERASE, ID, add, detach, item, remove


@dataclass
class CountingReader:
    """A way to the log that counts what is read."""

    log: MemoryEventStore
    queries: int = 0
    records: list[Record] = field(default_factory=list)

    async def document(self, stream: str, kind: str) -> bytes | None:
        self.queries += 1
        return await self.log.document(stream, kind)

    async def read(self, stream: str, after: int = -1) -> AsyncIterator[Record]:
        self.queries += 1
        async for record in self.log.read(stream, after):
            self.records.append(record)
            yield record

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


async def obey(store: MemoryEventStore, *commands: c.Command) -> None:
    writer = AggregateWriter(store, MemoryLiveBus(), asyncio.sleep)
    for command in commands:
        await writer.obey(AggregateOrder(CATEGORY, ID, command))


async def folded(store: MemoryEventStore) -> ConversationState:
    """The state from the first event on, whatever is kept beside the stream."""
    state = CONVERSATION.initial
    async for record in store.read(ID):
        state = CONVERSATION.fold(CONVERSATION.codec.decode(record), state)
    return state


async def test_every_event_is_read_back_as_it_was_written() -> None:
    store = MemoryEventStore()
    change = c.ChangeMetadata(ID, "default", {"a": [1, None, "ü"]}, None)
    await obey(store, CREATE, add(item(1), item(2)), remove(1), change, ATTACH, detach(item(3)))
    state, version = await CONVERSATION.read(store, ID)
    assert version == 5
    assert [each["id"] for each in state.items] == [item(2)["id"], item(3)["id"]]
    assert (state.metadata, state.attached, state.created_at) == (change.metadata, None, 1_800_000_000)


async def test_its_head_tells_whether_a_response_runs_in_it() -> None:
    store = MemoryEventStore()
    told = []
    for command in (CREATE, ATTACH, detach(), ERASE):
        await obey(store, command)
        head = await store.head(ID)
        assert head is not None
        assert (head.category, head.tenant, head.epoch, head.owner) == (CATEGORY, "default", 1, None)
        told.append(head.state)
    assert told == [OPEN, LOCKED, OPEN, "erased"]


async def test_a_long_conversation_is_read_in_two_queries_and_few_events() -> None:
    store = MemoryEventStore()
    await obey(store, CREATE, *(add(item(number)) for number in range(300)))
    counting = CountingReader(store)
    state, version = await CONVERSATION.read(counting, ID)
    assert (state, version) == (await folded(store), 300)
    assert counting.queries == 2
    assert len(counting.records) < 64


async def test_a_state_that_grew_too_long_is_read_from_its_events() -> None:
    assert CONVERSATION.snapshots is not None
    brief = replace(CONVERSATION, snapshots=replace(CONVERSATION.snapshots, bytes_max=30_000))
    store = MemoryEventStore()
    writer = AggregateWriter(store, MemoryLiveBus(), asyncio.sleep, {CATEGORY: brief})
    for command in (CREATE, *(add(item(number)) for number in range(150))):
        await writer.obey(AggregateOrder(CATEGORY, ID, command))
    kept = await store.document(ID, SNAPSHOT)
    assert kept is not None
    assert len(kept) <= 30_000
    assert await brief.read(store, ID) == (await folded(store), 150)


async def test_what_is_kept_in_another_shape_is_not_used() -> None:
    store = MemoryEventStore()
    await obey(store, CREATE, *(add(item(number)) for number in range(70)))
    assert await store.document(ID, SNAPSHOT) is not None
    await store.append(Unit([], documents=[Document(ID, SNAPSHOT, b'{"shape":0,"state":[]}')]))
    assert await CONVERSATION.read(store, ID) == (await folded(store), 70)


@pytest.mark.parametrize("events", [1, 80])
async def test_erasing_takes_what_is_kept_beside_it_too(events: int) -> None:
    store = MemoryEventStore()
    await obey(store, CREATE, *(add(item(number, "a secret word")) for number in range(events)), ERASE)
    assert await store.document(ID, SNAPSHOT) is None
    payloads = [data for record in [r async for r in store.read(ID)] for data in record.payload or ()]
    assert b"secret" not in b"".join(payloads)
    state, _ = await CONVERSATION.read(store, ID)
    assert state.erased
    assert not state.belongs_to("default")
