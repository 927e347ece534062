"""Commands to aggregates that no host runs: nobody owns their streams, versions decide who comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from actors.aggregate_writer import RACES_MAX, AggregateWriter
from actors.client import ANSWER_MAX
from actors.orders import AggregateOrder, RuntimeUnavailable
from eventstore.errors import OutcomeUnknown, StoreUnavailable
from eventstore.events import Batch, Recorded, Unit
from eventstore.memory import MemoryEventStore, MemoryLiveBus
from eventstore.ports import EventStore
from runtime.conversation import aggregate as conversation
from runtime.conversation.commands import AddItems, CreateConversation
from runtime.project.aggregate import ARCHIVED, CATEGORY, PROJECT
from runtime.project.commands import ArchiveProject, CreateKey, CreateProject, NewKey, RevokeKey
from runtime.project.errors import UnknownKey, UnknownProject
from runtime.project.state import ProjectState
from tests import virtual_time
from tests.local_cluster import LocalCluster
from tests.unit.actors.kit import FlakyStore

ID = "proj_" + "1" * 24
CONVERSATION = "conv_" + "1" * 32
ITEM = {"type": "message", "id": "msg_1"}
CREATE = CreateProject(ID, "Search", at=1, by="admin")


@dataclass
class LosingStore:
    """A way to the log on which somebody else appends first, so many times."""

    log: MemoryEventStore
    faster: Callable[[], Awaitable[None]]
    times: int

    async def append(self, unit: Unit) -> Sequence[Recorded]:
        if self.times:
            self.times -= 1
            await self.faster()
        return await self.log.append(unit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


def key(number: int) -> CreateKey:
    return CreateKey(ID, NewKey(f"key_{number}", "ci", "0" * 64, "abcd"), at=2, by="admin")


def order(command: object, stream: str = ID) -> AggregateOrder:
    return AggregateOrder(CATEGORY, stream, command)


def writer(store: EventStore, bus: MemoryLiveBus | None = None) -> AggregateWriter:
    async def no_pause(_: float) -> None:
        await asyncio.sleep(0)

    return AggregateWriter(store, bus or MemoryLiveBus(), no_pause)


async def read(store: EventStore) -> ProjectState:
    return (await PROJECT.read(store, ID))[0]


async def test_a_command_is_recorded_and_its_head_tells_of_it() -> None:
    store = MemoryEventStore()
    for command in (CREATE, key(1), ArchiveProject(ID, 3, "admin")):
        await writer(store).obey(order(command))
    head = await store.head(ID)
    assert head is not None
    assert (head.category, head.tenant, head.state, head.epoch, head.owner) == (
        CATEGORY,
        ID,
        ARCHIVED,
        1,
        None,
    )
    assert head.attributes["name"] == "Search"
    assert await types_of(store) == [
        ("project_created",),
        ("key_created",),
        ("project_archived",),
    ]


async def test_a_repeated_command_writes_nothing() -> None:
    store = MemoryEventStore()
    for command in (CREATE, CREATE, key(1), key(1), RevokeKey(ID, "key_1", 5, 5, "admin")):
        await writer(store).obey(order(command))
    await writer(store).obey(order(RevokeKey(ID, "key_1", 9, 9, "admin")))
    assert len(await types_of(store)) == 3


async def test_a_refusal_writes_nothing_and_crosses_processes() -> None:
    async with LocalCluster() as cluster:
        with pytest.raises(UnknownProject):
            await cluster.client.change(order(key(1)))
        await cluster.client.change(order(CREATE))
        with pytest.raises(UnknownKey):
            await cluster.client.change(order(RevokeKey(ID, "key_1", 5, 5, "admin")))
        assert len(await types_of(cluster.store)) == 1


async def test_commands_of_many_hosts_at_once_are_all_recorded() -> None:
    store = MemoryEventStore()
    writers = [writer(store) for _ in range(4)]
    await writers[0].obey(order(CREATE))
    await asyncio.gather(*(writers[n % 4].obey(order(key(n))) for n in range(40)))
    assert set((await read(store)).keys) == {f"key_{n}" for n in range(40)}


async def test_a_command_is_decided_anew_on_what_a_faster_host_recorded() -> None:
    """Both create the same project: one does, and the other has nothing left to do."""
    store = MemoryEventStore()
    losing = LosingStore(store, lambda: writer(store).obey(order(CREATE)), times=1)
    await writer(losing).obey(order(CREATE))
    assert len(await types_of(store)) == 1


async def test_whoever_keeps_losing_is_told_to_come_back() -> None:
    store = MemoryEventStore()
    numbers = iter(range(RACES_MAX))
    await writer(store).obey(order(CREATE))
    losing = LosingStore(store, lambda: writer(store).obey(order(key(next(numbers)))), times=RACES_MAX)
    with pytest.raises(RuntimeUnavailable, match=ID):
        await writer(losing).obey(order(key(100)))
    assert "key_100" not in (await read(store)).keys


@pytest.mark.parametrize("fault", ["late", "lost", "later"])
async def test_a_commit_of_which_nobody_heard_is_made_once(fault: str) -> None:
    """Whether it happened, did not, or happens when it is asked for again."""
    store = MemoryEventStore()
    await writer(FlakyStore(store, [fault])).obey(order(CREATE))
    adding = AggregateOrder(conversation.CATEGORY, CONVERSATION, AddItems(CONVERSATION, ID, (ITEM,), None))
    begun = CreateConversation(CONVERSATION, ID, None, 1, {})
    await writer(store).obey(AggregateOrder(conversation.CATEGORY, CONVERSATION, begun))
    await writer(FlakyStore(store, [fault, "away", fault])).obey(adding)
    assert [record.types for record in await store.read_all(0)] == [
        ("project_created",),
        ("conversation_created",),
        ("items_added",),
    ]


@pytest.mark.parametrize(
    ("faults", "error"), [(["away"], StoreUnavailable), (["lost"] * RACES_MAX, OutcomeUnknown)]
)
async def test_a_store_that_stays_away_is_not_waited_for(faults: list[str], error: type[Exception]) -> None:
    store = MemoryEventStore()
    with pytest.raises(error) as raised:
        await writer(FlakyStore(store, faults)).obey(order(CREATE))
    assert raised.type is error
    assert await types_of(store) == []


@pytest.mark.parametrize("orders", [1, 3])
def test_a_store_that_does_not_answer_is_not_waited_for_longer_than_clients_wait(orders: int) -> None:
    """Neither by those that come after it."""

    class Silent(MemoryEventStore):
        async def append(self, unit: Unit) -> Sequence[Recorded]:
            await asyncio.sleep(ANSWER_MAX)
            return await super().append(unit)

    async def scenario() -> None:
        began, one = asyncio.get_running_loop().time(), writer(Silent())
        outcomes = await asyncio.gather(
            *(one.obey(order(CREATE)) for _ in range(orders)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {OutcomeUnknown}
        assert asyncio.get_running_loop().time() - began < ANSWER_MAX

    virtual_time.run(scenario())


async def test_readers_of_the_whole_log_need_not_wait_for_its_position() -> None:
    heard: list[Batch] = []

    def hear(batch: Batch) -> list[Batch]:
        heard.append(batch)
        return [batch]

    await writer(MemoryEventStore(), MemoryLiveBus(hear)).obey(order(CREATE))
    assert [(batch.channel, batch.count, batch.version, batch.position) for batch in heard] == [(ID, 0, 0, 1)]


async def types_of(store: EventStore) -> list[tuple[str, ...]]:
    return [record.types async for record in store.read(ID)]
