"""How a response waits, is cancelled and erased, and what it continues."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.orders import UnknownResponse
from eventstore.errors import StoreUnavailable
from runtime.model import CallEnded, ItemOpened, TextDelta, Usage
from runtime.response.errors import InvalidInput, PreviousResponseInProgress, PreviousResponseNotFound
from runtime.response.state import Status
from tests import virtual_time
from tests.unit.actors.kit import (
    BUSY,
    ID,
    FlakyStore,
    ScriptedModel,
    World,
    always,
    call_of,
    check_shown,
    create,
    in_turn,
    run,
    says,
    settle,
)
from tests.virtual_time import in_virtual_time

OTHER = "resp_" + "1" * 32


# -- Queue, cancel, delete ---------------------------------------------------------------------------------


@in_virtual_time
async def test_a_queued_response_waits_for_nobody_in_particular_and_is_run_by_whoever_takes_it() -> None:
    world = World(ScriptedModel(always(*says("Hello"))))
    await world.actor("host-1").create(create(queued=True, background=True), start=False)
    queued = await world.head()
    assert (queued.state, queued.owner) == ("queued", None)
    actor = world.actor("host-2")
    await actor.resume(queued)
    assert (await world.head()).owner == "host-2"
    await actor.run()
    assert (await world.head()).state == "completed"
    types = [event["type"] for event in await world.shown()]
    assert types[:3] == ["response.created", "response.queued", "response.in_progress"]


@in_virtual_time
async def test_cancelling_closes_the_upstream_and_ends_the_response() -> None:
    world = World(ScriptedModel(always([ItemOpened("message"), TextDelta("Well")], asyncio.Event())))
    actor = world.actor()
    await actor.create(create(), start=True)
    running = asyncio.create_task(actor.run())
    await settle()
    await actor.cancel("key_1")
    await actor.cancel("key_1")
    await running
    assert world.model.open_calls == 0
    final = check_shown(await world.shown())
    assert (final["status"], final["output"][0]["status"]) == ("cancelled", "incomplete")
    head = await world.head()
    assert (head.state, head.owner) == ("cancelled", None)


@in_virtual_time
async def test_what_nobody_runs_is_cancelled_by_whoever_is_asked() -> None:
    world = World(ScriptedModel(always()))
    await world.actor().create(create(queued=True), start=False)
    await world.actor("host-2").cancel("key_1")
    assert check_shown(await world.shown())["status"] == "cancelled"
    version = (await world.head()).version
    await world.actor("host-3").cancel("key_2")
    assert (await world.head()).version == version
    with pytest.raises(UnknownResponse):
        await world.actor(id=OTHER).cancel("key_1")


@in_virtual_time
async def test_waiting_for_a_further_try_can_be_cancelled() -> None:
    world = World(ScriptedModel(always(BUSY)))
    actor = world.actor()
    await actor.create(create(), start=True)
    running = asyncio.create_task(actor.run())
    await settle()
    await actor.cancel("key_1")
    await running
    assert asyncio.get_running_loop().time() == 0
    assert check_shown(await world.shown())["status"] == "cancelled"


@in_virtual_time
async def test_nobody_is_kept_waiting_by_a_log_that_is_away_but_a_cancel_is_not_forgotten() -> None:
    world = World(ScriptedModel(always([ItemOpened("message"), TextDelta("Well")], asyncio.Event())))
    flaky = FlakyStore(world.store, ["", ""])
    actor = world.actor(store=flaky)
    await actor.create(create(), start=True)
    running = asyncio.create_task(actor.run())
    await settle()
    flaky.faults = ["away"] * 10
    with pytest.raises(StoreUnavailable):
        await actor.cancel("key_1")
    await running
    assert check_shown(await world.shown())["status"] == "cancelled"


@in_virtual_time
async def test_deleting_a_running_response_cancels_and_erases_it() -> None:
    world = World(ScriptedModel(always([ItemOpened("message"), TextDelta("secret")], asyncio.Event())))
    actor = world.actor()
    await actor.create(create(), start=True)
    running = asyncio.create_task(actor.run())
    await settle()
    await actor.delete("key_1")
    await running
    await world.actor("host-2").delete("key_1")
    records = [record async for record in world.store.read(ID)]
    assert [record.payload is None for record in records] == [True] * (len(records) - 1) + [False]
    assert records[-1].types == ("$erased",)
    assert (await world.head()).state == "erased"
    assert await world.store.document(ID, "items") is None
    with pytest.raises(UnknownResponse):
        await world.actor("host-2").cancel("key_1")


@in_virtual_time
async def test_a_transient_response_is_told_apart_and_can_be_erased_after_its_end() -> None:
    world = World(ScriptedModel(always(*says("Hello"))))
    await run(world, store=False)
    assert all(batch.transient for batch in world.told)
    head = await world.head()
    assert head.category == "transient"
    assert "background" not in head.attributes
    await world.actor("host-2").delete("store:false", "its time is over")
    assert (await world.head()).state == "erased"


@in_virtual_time
async def test_a_host_that_closes_leaves_its_responses_as_they_are() -> None:
    world = World(ScriptedModel(always([ItemOpened("message"), TextDelta("Well")], asyncio.Event())))
    actor = world.actor()
    await actor.create(create(), start=True)
    running = asyncio.create_task(actor.run())
    await settle()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert world.model.open_calls == 0
    head = await world.head()
    assert (head.state, head.owner) == ("in_progress", "host-1")


# -- What it continues -------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_response_continues_the_one_before_it() -> None:
    world = World(ScriptedModel(in_turn(says("Hello"), says("Again"))))
    await run(world)
    await run(world, id=OTHER, previous_response_id=ID)
    roles = [item["role"] for item in world.model.requests[1].items]
    assert roles == ["user", "assistant", "user"]
    assert (await world.head(OTHER)).parent == ID


@pytest.mark.parametrize(
    ("parent", "error"),
    [
        ({"id": ID}, None),
        ({"id": "resp_" + "f" * 32}, PreviousResponseNotFound),
        ({"id": ID, "project": "theirs"}, PreviousResponseNotFound),
        ({"id": ID, "store": False}, PreviousResponseNotFound),
    ],
)
def test_a_parent_that_may_not_be_continued_is_refused_and_nothing_written(
    parent: dict[str, Any], error: type[Exception] | None
) -> None:
    async def scenario() -> None:
        world = World(ScriptedModel(always(*says("Hello"))))
        if parent["id"] == ID:
            await run(world, **parent)
        await _refused(world, create(id=OTHER, previous_response_id=parent["id"]), error)

    virtual_time.run(scenario())


@in_virtual_time
async def test_a_parent_that_runs_or_was_erased_is_refused() -> None:
    world = World(ScriptedModel(always(*says("Hello"))))
    actor = world.actor()
    await actor.create(create(), start=True)
    child = create(id=OTHER, previous_response_id=ID)
    await _refused(world, child, PreviousResponseInProgress)
    await actor.run()
    await actor.delete("key_1")
    await _refused(world, child, PreviousResponseNotFound)


@in_virtual_time
async def test_a_call_without_its_output_is_refused() -> None:
    ended = CallEnded("tool_calls", Usage(1, 1))
    world = World(ScriptedModel(in_turn([[*call_of("weather", "{}"), ended]], says("Sunny"))))
    await run(world)
    await _refused(world, create(id=OTHER, previous_response_id=ID), InvalidInput)
    output = {"type": "function_call_output", "call_id": "call_1", "output": "sun"}
    await run(world, id=OTHER, previous_response_id=ID, input=(output,))
    assert check_shown(await world.shown(OTHER))["status"] == "completed"


@pytest.mark.parametrize("project", ["default", "theirs"])
def test_an_item_reference_is_resolved_within_its_project_only(project: str) -> None:
    async def scenario() -> None:
        world = World(ScriptedModel(in_turn(says("Hello"), says("Again"))))
        await run(world, project=project)
        item_id = check_shown(await world.shown())["output"][0]["id"]
        child = create(id=OTHER, input=({"type": "item_reference", "id": item_id},))
        if project == "theirs":
            return await _refused(world, child, InvalidInput)
        actor = world.actor(id=OTHER)
        await actor.create(child, start=True)
        await actor.run()
        assert world.model.requests[1].items[0]["content"][0]["text"] == "Hello"
        return None

    virtual_time.run(scenario())


@in_virtual_time
async def test_a_response_whose_context_was_erased_meanwhile_fails() -> None:
    world = World(ScriptedModel(in_turn(says("Hello"))))
    await run(world)
    await world.actor(id=OTHER).create(create(id=OTHER, previous_response_id=ID, queued=True), start=False)
    await world.actor().delete("key_1")
    actor = world.actor(id=OTHER)
    await actor.resume(await world.head(OTHER))
    await actor.run()
    assert check_shown(await world.shown(OTHER))["error"]["code"] == "previous_response_not_found"
    assert actor.state() is not None
    assert len(world.model.requests) == 1


async def _refused(world: World, command: Any, error: type[Exception] | None) -> None:
    actor = world.actor(id=command.id)
    if error is None:
        return await actor.create(command, start=True)
    with pytest.raises(error):
        await actor.create(command, start=True)
    assert await world.store.head(command.id) is None
    return await actor.run()


def test_status_words_are_those_of_the_heads() -> None:
    assert {"queued", "in_progress", "completed", "failed", "incomplete", "cancelled", "erased"} < set(Status)
