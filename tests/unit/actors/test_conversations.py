"""Responses in conversations: attached by the unit that creates them, detached by the one that ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from actors.aggregate_writer import RACES_MAX, AggregateWriter
from actors.orders import AggregateOrder, RuntimeUnavailable
from eventstore.errors import OutcomeUnknown, StoreUnavailable
from eventstore.events import Record, Recorded, Unit
from eventstore.memory import MemoryEventStore
from runtime.conversation import commands as c
from runtime.conversation.aggregate import CATEGORY, CONVERSATION
from runtime.conversation.errors import ConversationLocked, UnknownConversation
from runtime.conversation.state import ConversationState
from runtime.model import CallEnded, ItemClosed, ItemOpened, ModelError, ModelEvent, TextDelta, Usage
from runtime.response.commands import Create
from runtime.response.errors import InvalidInput
from tests import virtual_time
from tests.unit.actors.kit import (
    ENDED,
    ID,
    CrashingStore,
    FlakyStore,
    ScriptedModel,
    World,
    always,
    call_of,
    check_shown,
    create,
    in_turn,
    live_through,
    says,
    settle,
)
from tests.unit.conversation.kit import ID as CONV
from tests.unit.conversation.kit import item
from tests.virtual_time import in_virtual_time

OTHER = "resp_" + "1" * 32


async def order(world: World, command: c.Command) -> None:
    """As any host would carry it out."""
    writer = AggregateWriter(world.store, world.bus, asyncio.sleep)
    await writer.obey(AggregateOrder(CATEGORY, command.conversation, command))


async def begun(model: ScriptedModel, *items: dict[str, Any], project: str = "default") -> World:
    """A world with a conversation."""
    world = World(model)
    await order(world, c.CreateConversation(CONV, project, None, 0, {}, items))
    return world


async def conversation(world: World) -> ConversationState:
    return (await CONVERSATION.read(world.store, CONV))[0]


def within(id: str = ID, **request: Any) -> Create:
    """A request to say something in the conversation."""
    return create(id=id, **{"conversation": CONV, **request})


def texts(state: ConversationState) -> list[str]:
    """What is said in it, in order."""
    return [part["text"] for each in state.items for part in each.get("content", ())]


@dataclass
class Interrupted:
    """A way to the log on which something else happens before its appends, so many times."""

    log: MemoryEventStore
    before: Callable[[], Awaitable[None]]
    times: int = 1

    async def append(self, unit: Unit) -> Sequence[Recorded]:
        if self.times:
            self.times -= 1
            await self.before()
        return await self.log.append(unit)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


@dataclass
class ReadThenChanged:
    """A way to the log on which something else happens right after its first read."""

    log: MemoryEventStore
    then: Callable[[], Awaitable[None]]
    times: int = 1

    async def read(self, stream: str, after: int = -1) -> AsyncIterator[Record]:
        async for record in self.log.read(stream, after):
            yield record
        if self.times:
            self.times -= 1
            await self.then()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


@dataclass
class CutOff:
    """A way to the log that breaks off with the first append: it is recorded, and nothing can be read."""

    log: MemoryEventStore
    cut: bool = False

    async def append(self, unit: Unit) -> Sequence[Recorded]:
        if not self.cut:
            self.cut = True
            await self.log.append(unit)
        raise OutcomeUnknown("the test says so")

    def read(self, stream: str, after: int = -1) -> AsyncIterator[Record]:
        if self.cut:
            raise StoreUnavailable("the test says so")
        return self.log.read(stream, after)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


def metadata_changes(world: World) -> Callable[[], Awaitable[None]]:
    """Somebody else writes to the conversation, each time something else."""
    numbers = iter(range(100))

    async def change() -> None:
        await order(world, c.ChangeMetadata(CONV, "default", {"n": next(numbers)}, None))

    return change


# -- Its way -----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_is_asked_and_said_is_told_to_the_next_one() -> None:
    world = await begun(ScriptedModel(in_turn(says("One."), says("Two."))), item(1, "Speak."))
    for id in (ID, OTHER):
        actor = world.actor(id=id)
        await actor.create(within(id), start=True)
        assert (await conversation(world)).attached == id
        await actor.run()
    state = await conversation(world)
    assert state.attached is None
    assert texts(state) == ["Speak.", "Count.", "One.", "Count.", "Two."]
    told = [each["content"][0]["text"] for each in world.model.requests[1].items]
    assert told == ["Speak.", "Count.", "One.", "Count."]


@in_virtual_time
async def test_both_streams_change_in_one_unit_or_not_at_all() -> None:
    """At its creation and at its end: their records lie side by side in the log."""
    world = await begun(ScriptedModel(always(*says("One."))))
    actor = world.actor()
    await actor.create(within(), start=True)
    await actor.run()
    types = [(record.stream, record.types[-1]) for record in await world.store.read_all(1)]
    assert types[:2] == [(ID, "activation_started"), (CONV, "response_attached")]
    assert types[-2:] == [(ID, "response_completed"), (CONV, "response_detached")]


@in_virtual_time
async def test_one_response_at_a_time_and_the_second_leaves_nothing_behind() -> None:
    world = await begun(ScriptedModel(always(*says("One."))))
    await world.actor().create(within(), start=True)
    with pytest.raises(ConversationLocked):
        await world.actor(id=OTHER).create(within(OTHER), start=True)
    assert await world.store.head(OTHER) is None


@pytest.mark.parametrize("conversation", [CONV, "conv_" + "0" * 32, ID, "../x"])
def test_one_that_is_not_there_for_this_project_is_refused(conversation: str) -> None:
    async def scenario() -> None:
        world = await begun(ScriptedModel(always()), project="theirs")
        with pytest.raises(UnknownConversation):
            await world.actor().create(within(conversation=conversation), start=True)
        assert await world.store.head(ID) is None

    virtual_time.run(scenario())


# -- Its end -----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_answer_cut_short_stays_but_a_half_function_call_does_not() -> None:
    """Nobody could ever answer it, so the conversation could not go on."""
    half: list[ModelEvent] = [
        ItemOpened("message"),
        TextDelta("Let me "),
        ItemClosed(),
        ItemOpened("function_call", "f", "c"),
    ]
    world = await begun(ScriptedModel(always([*half, CallEnded("length", Usage(1, 1))])))
    actor = world.actor()
    await actor.create(within(), start=True)
    await actor.run()
    assert check_shown(await world.shown())["status"] == "incomplete"
    assert texts(await conversation(world)) == ["Count.", "Let me "]
    assert [each["type"] for each in (await conversation(world)).items] == ["message", "message"]


@in_virtual_time
async def test_a_failed_response_adds_nothing_and_lets_go() -> None:
    world = await begun(ScriptedModel(always(ModelError("invalid_prompt", "No."))))
    actor = world.actor()
    await actor.create(within(), start=True)
    await actor.run()
    state = await conversation(world)
    assert (state.attached, state.items) == (None, ())


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("way", ["cancel", "delete"])
def test_a_cancelled_response_adds_nothing_and_lets_go(way: str, running: bool) -> None:
    """Whether a host runs it or it waits in the queue, and nobody does."""

    async def scenario() -> None:
        world = await begun(ScriptedModel(always([ItemOpened("message"), TextDelta("On")], asyncio.Event())))
        actor = world.actor()
        await actor.create(within(), start=running)
        task = asyncio.create_task(actor.run())
        await settle()
        assert (await conversation(world)).attached == ID
        if way == "cancel":
            await actor.cancel("key_1")
        else:
            await actor.delete("key_1")
        await task
        state = await conversation(world)
        assert (state.attached, state.items) == (None, ())

    virtual_time.run(scenario())


@in_virtual_time
async def test_its_items_outlive_the_response() -> None:
    world = await begun(ScriptedModel(in_turn(says("One."), says("Two."))))
    first = world.actor()
    await first.create(within(store=False), start=True)
    await first.run()
    await world.actor().delete("store:false", "its time is over")
    second = world.actor(id=OTHER)
    await second.create(within(OTHER), start=True)
    await second.run()
    assert texts(await conversation(world)) == ["Count.", "One.", "Count.", "Two."]


# -- What it is told ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_call_in_the_conversation_needs_its_output() -> None:
    world = await begun(ScriptedModel(in_turn([[*call_of("look", "{}"), ENDED]], says("A tree."))))
    actor = world.actor()
    await actor.create(within(), start=True)
    await actor.run()
    with pytest.raises(InvalidInput, match="No tool output found for function call call_1"):
        await world.actor(id=OTHER).create(within(OTHER), start=True)
    assert (await conversation(world)).attached is None
    output = {"type": "function_call_output", "call_id": "call_1", "output": "a tree"}
    answering = world.actor(id=OTHER)
    await answering.create(within(OTHER, input=(output,)), start=True)
    await answering.run()
    types = [each["type"] for each in (await conversation(world)).items]
    assert types == ["message", "function_call", "function_call_output", "message"]


@in_virtual_time
async def test_an_item_of_the_conversation_can_be_referred_to() -> None:
    world = await begun(ScriptedModel(always(*says("One."))), item(1, "Speak."))
    reference = {"type": "item_reference", "id": item(1)["id"]}
    actor = world.actor()
    await actor.create(within(input=(reference,)), start=True)
    await actor.run()
    assert texts(await conversation(world)) == ["Speak.", "Speak.", "One."]


# -- Races -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [Interrupted, ReadThenChanged])
def test_a_conversation_that_changes_while_a_response_begins_is_read_again(
    way: type[Interrupted | ReadThenChanged],
) -> None:
    """What the model is told is what the conversation held when the response was attached."""

    async def scenario() -> None:
        world = await begun(ScriptedModel(always(*says("One."))))

        async def add() -> None:
            await order(world, c.AddItems(CONV, "default", (item(7, "Wait!"),), None))

        actor = world.actor(store=way(world.store, add))
        await actor.create(within(), start=True)
        await actor.run()
        assert texts(await conversation(world)) == ["Wait!", "Count.", "One."]
        told = [each["content"][0]["text"] for each in world.model.requests[0].items]
        assert told == ["Wait!", "Count."]

    virtual_time.run(scenario())


@in_virtual_time
async def test_a_conversation_that_keeps_changing_is_given_up() -> None:
    world = await begun(ScriptedModel(always()))
    store = Interrupted(world.store, metadata_changes(world), times=RACES_MAX)
    with pytest.raises(RuntimeUnavailable, match=CONV):
        await world.actor(store=store).create(within(), start=True)
    assert (await conversation(world)).attached is None


@in_virtual_time
async def test_a_change_while_a_response_ends_does_it_no_harm() -> None:
    world = await begun(ScriptedModel(always(*says("One."))))
    store = Interrupted(world.store, metadata_changes(world), times=0)
    actor = world.actor(store=store)
    await actor.create(within(), start=True)
    store.times = 5
    await actor.run()
    assert store.times == 0
    assert check_shown(await world.shown())["status"] == "completed"
    state = await conversation(world)
    assert (state.attached, texts(state)) == (None, ["Count.", "One."])


@in_virtual_time
async def test_of_many_at_once_one_begins() -> None:
    world = await begun(ScriptedModel(always(*says("One."))))
    ids = [f"resp_{number:032x}" for number in range(20)]
    outcomes = await asyncio.gather(
        *(world.actor(id=id).create(within(id), start=True) for id in ids), return_exceptions=True
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, ConversationLocked) for outcome in outcomes) == 19


# -- Crashes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("at", range(5))
def test_no_crash_leaves_it_locked_or_an_item_doubled(at: int, committed: bool) -> None:
    """Its host dies at every append; another one takes over, whatever of it was recorded."""

    async def scenario() -> None:
        model = ScriptedModel(lambda request, number: says("a", "b", "c", apart=0.1))
        world = await begun(model, item(1, "Speak."))
        shown = await live_through(
            world, within(resume="fail"), [CrashingStore(world.store, at, committed), None]
        )
        final = check_shown(shown)
        state = await conversation(world)
        assert state.attached is None
        answered = final["status"] == "completed"
        said = ["Count.", "abc"] if answered else []
        assert texts(state) == ["Speak.", *said]
        for request in model.requests:
            assert request.items[0]["content"][0]["text"] == "Speak."

    virtual_time.run(scenario())


@pytest.mark.parametrize("fault", ["away", "lost", "late", "later"])
@pytest.mark.parametrize("at", range(4))
def test_a_log_that_stumbles_attaches_and_detaches_once(fault: str, at: int) -> None:
    async def scenario() -> None:
        world = await begun(ScriptedModel(always(*says("a", "b", "c", apart=0.1))))
        actor = world.actor(store=FlakyStore(world.store, [""] * at + [fault]))
        await actor.create(within(), start=True)
        await actor.run()
        state = await conversation(world)
        assert (state.attached, texts(state)) == (None, ["Count.", "abc"])
        types = [record.types[0] async for record in world.store.read(CONV)]
        assert types == ["conversation_created", "response_attached", "response_detached"]

    virtual_time.run(scenario())


@in_virtual_time
async def test_a_create_whose_answer_was_lost_meets_its_own_response_and_no_lock() -> None:
    world = await begun(ScriptedModel(always(*says("One."))))
    with pytest.raises(StoreUnavailable):
        await world.actor(store=CutOff(world.store)).create(within(), start=True)
    assert (await conversation(world)).attached == ID
    again = world.actor()
    await again.create(within(), start=True)
    await again.run()
    state = await conversation(world)
    assert (state.attached, texts(state)) == (None, ["Count.", "One."])


@in_virtual_time
async def test_a_create_repeated_after_its_end_succeeds_though_the_conversation_went_on() -> None:
    """The conversation holds a call without its output by now, or is locked by the next response."""
    world = await begun(ScriptedModel(in_turn([[*call_of("look", "{}"), ENDED]], says("A tree."))))
    first = world.actor()
    await first.create(within(), start=True)
    await first.run()
    await world.actor("host-2").create(replace(within(), at=7), start=True)
    output = {"type": "function_call_output", "call_id": "call_1", "output": "a tree"}
    await world.actor(id=OTHER).create(within(OTHER, input=(output,)), start=True)
    await world.actor("host-2").create(replace(within(), at=7), start=True)
    assert (await conversation(world)).attached == OTHER
    assert len(world.model.requests) == 1
