"""What a response actor records and shows, from creation to erasure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import wraps
from typing import Any

import pytest

from actors.orders import UnknownResponse
from actors.response_actor import ActivationLost
from eventstore.errors import StoreUnavailable, WrongExpectedVersion
from eventstore.events import Append, HeadChange, NewEvent, Unit
from runtime.model import CallEnded, ItemClosed, ItemOpened, ModelError, TextDelta, Usage
from runtime.response import events as e
from runtime.response.errors import (
    InvalidInput,
    PreviousResponseInProgress,
    PreviousResponseNotFound,
    UnknownEvent,
)
from runtime.response.replay import ResponseReplay
from runtime.response.state import Status
from runtime.resume import GO_ON
from tests import virtual_time
from tests.unit.actors.kit import (
    ENDED,
    ID,
    FlakyStore,
    LateTake,
    ScriptedModel,
    SlowStore,
    Step,
    World,
    always,
    call_of,
    check_shown,
    create,
    in_turn,
    says,
    settle,
    text_of,
)

OTHER = "resp_" + "1" * 32
BUSY = ModelError("rate_limit_exceeded", "The upstream is busy.", retryable=True)


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        virtual_time.run(test(*args, **kwargs))

    return run


async def run(world: World, **request: Any) -> None:
    command = create(**request)
    actor = world.actor(id=command.id)
    await actor.create(command, start=True)
    await actor.run()


# -- The way of an answer ----------------------------------------------------------------------------------


@in_virtual_time
async def test_an_answer_of_one_delta_costs_two_commits() -> None:
    world = World(ScriptedModel(always(*says("Hello"))))
    await run(world)
    assert await world.commits() == [
        ("response_created", "activation_started"),
        (
            "model_call_started",
            "item_started",
            "text_appended",
            "item_ended",
            "model_call_ended",
            "response_completed",
        ),
    ]
    final = check_shown(await world.shown())
    assert final["status"] == "completed"
    assert final["usage"]["output_tokens"] == 1
    head = await world.head()
    assert (head.state, head.owner, head.category, head.tenant) == ("completed", None, "response", "default")
    assert head.attributes["ended_at"] == "0"
    assert await world.store.document(ID, "items") is not None


@in_virtual_time
async def test_every_batch_on_the_bus_is_what_a_replay_shows() -> None:
    world = World(ScriptedModel(always(*says("Hel", "lo", " you", apart=0.1))))
    await run(world)
    told = [frame for batch in world.told for frame in batch.frames or ()]
    replay = ResponseReplay(world.store, ID)
    assert told == [frame async for batch in replay.read(-1) for frame in batch.frames or ()]
    assert [batch.first for batch in world.told][1:] == [batch.end + 1 for batch in world.told][:-1]
    assert [batch.last for batch in world.told] == [False] * (len(world.told) - 1) + [True]
    assert all(batch.position > 0 for batch in world.told)


@in_virtual_time
async def test_the_first_delta_is_committed_at_once_and_those_of_a_commits_time_together() -> None:
    gates = [asyncio.Event() for _ in range(2)]
    script: list[Step] = [
        [ItemOpened("message"), TextDelta("a")],
        gates[0],
        [TextDelta("b")],
        [TextDelta("c"), TextDelta("d")],
        gates[1],
        [ItemClosed(), ENDED],
    ]
    world = World(ScriptedModel(always(*script)))
    slow = SlowStore(world.store, since=2)
    actor = world.actor(store=slow)
    await actor.create(create(), start=True)
    running = asyncio.create_task(actor.run())
    await settle()
    assert text_of(await world.shown()) == "a"
    slow.since = slow.appends  # The next commit waits.
    gates[0].set()
    await slow.waiting.wait()
    assert text_of(await world.shown()) == "a", "nothing is shown before it is committed"
    gates[1].set()
    await settle()
    slow.let_go.set()
    await running
    appended = [event.deltas for event in await world.events() if isinstance(event, e.TextAppended)]
    assert appended == [("a",), ("b", "c", "d")]
    assert (await world.commits())[-1] == ("item_ended", "model_call_ended", "response_completed")


@in_virtual_time
async def test_an_upstream_is_not_read_further_while_64_deltas_wait() -> None:
    script: list[Step] = [[ItemOpened("message"), TextDelta("first")]]
    script += [[TextDelta(str(n))] for n in range(300)]
    world = World(ScriptedModel(always(*script, [ItemClosed(), ENDED])))
    slow = SlowStore(world.store, since=1)
    actor = world.actor(store=slow)
    await actor.create(create(), start=True)
    running = asyncio.create_task(actor.run())
    await slow.waiting.wait()
    await settle()
    assert world.model.batches_read <= 1 + 64 + 64
    waiting = world.model.batches_read
    await asyncio.sleep(60)
    assert world.model.batches_read == waiting
    slow.let_go.set()
    await running
    assert text_of(await world.shown()) == "first" + "".join(str(n) for n in range(300))


@in_virtual_time
async def test_a_function_call_ends_the_response_completed() -> None:
    ended = CallEnded("tool_calls", Usage(1, 1))
    world = World(ScriptedModel(always([*call_of("weather", '{"city":', '"Oslo"}'), ended])))
    tool = {"type": "function", "name": "weather", "parameters": {}, "strict": False, "description": None}
    await run(world, tools=(tool,), instructions="Be brief.")
    final = check_shown(await world.shown())
    assert final["status"] == "completed"
    assert final["output"][0]["arguments"] == '{"city":"Oslo"}'
    (asked,) = world.model.requests
    assert (asked.instructions, asked.tools[0]["name"]) == ("Be brief.", "weather")


@in_virtual_time
async def test_an_answer_that_runs_out_of_tokens_is_incomplete() -> None:
    world = World(ScriptedModel(always(*says("Half of", finish="length"))))
    await run(world, max_output_tokens=16)
    final = check_shown(await world.shown())
    assert (final["status"], final["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert world.model.requests[0].max_output_tokens == 16


# -- When the model fails ----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_refused_call_is_tried_again_with_growing_pauses_and_then_no_more() -> None:
    world = World(ScriptedModel(always(BUSY)))
    await run(world, retries=3)
    assert len(world.model.requests) == 4
    assert asyncio.get_running_loop().time() == pytest.approx(0.5 + 1 + 2)
    final = check_shown(await world.shown())
    assert (final["status"], final["error"]) == (
        "failed",
        {"code": "rate_limit_exceeded", "message": "The upstream is busy."},
    )


@in_virtual_time
async def test_retry_after_is_followed() -> None:
    busy = ModelError("rate_limit_exceeded", "Busy.", retryable=True, retry_after=42)
    world = World(ScriptedModel(in_turn([busy], says("Hello"))))
    await run(world)
    assert asyncio.get_running_loop().time() == 42
    assert check_shown(await world.shown())["status"] == "completed"


@pytest.mark.parametrize(
    "error",
    [
        ModelError("upstream_auth", "The key was refused.", retryable=False),
        ModelError("rate_limit_exceeded", "Come back tomorrow.", retryable=True, retry_after=86_400),
    ],
)
def test_what_cannot_get_better_fails_at_once(error: ModelError) -> None:
    async def scenario() -> None:
        world = World(ScriptedModel(always(error)))
        await run(world)
        assert len(world.model.requests) == 1
        final = check_shown(await world.shown())
        assert final["error"] == {"code": error.code, "message": error.message}

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("nonsense", "code"),
    [
        ([TextDelta("of no item")], "upstream_protocol"),
        ([ItemOpened("message"), ItemOpened("message")], "upstream_protocol"),
    ],
)
def test_an_adapters_nonsense_ends_in_a_clear_error(nonsense: list[Any], code: str) -> None:
    async def scenario() -> None:
        world = World(ScriptedModel(always([*nonsense, ENDED])))
        await run(world)
        assert check_shown(await world.shown())["error"]["code"] == code

    virtual_time.run(scenario())


@in_virtual_time
async def test_an_adapter_that_breaks_ends_in_a_clear_error() -> None:
    def script(request: object, number: int) -> list[Step]:
        raise ZeroDivisionError

    world = World(ScriptedModel(script))
    await run(world)
    assert check_shown(await world.shown())["error"]["code"] == "server_error"


@in_virtual_time
async def test_what_a_model_is_asked_when_it_is_to_go_on() -> None:
    """Its half message, the instruction, and what is left of its tokens, roughly; the first item goes on."""
    cut = ModelError("upstream_interrupted", "The upstream broke off.", retryable=True)
    half: list[Step] = [[ItemOpened("message"), TextDelta("x" * 400)], cut]
    world = World(ScriptedModel(in_turn(half, says("y"))))
    await run(world, max_output_tokens=150)
    first, second = world.model.requests
    assert [item["role"] for item in second.items] == ["user", "assistant", "user"]
    assert second.items[1]["content"][0]["text"] == "x" * 400
    assert second.items[2]["content"][0]["text"] == GO_ON
    assert (first.max_output_tokens, second.max_output_tokens) == (150, 50)
    assert first.seed != second.seed
    assert text_of(await world.shown()) == "x" * 400 + "y"


@in_virtual_time
async def test_a_response_stops_at_its_time_limit() -> None:
    world = World(ScriptedModel(always([ItemOpened("message"), TextDelta("Well")], asyncio.Event())))
    await run(world, seconds=30)
    assert asyncio.get_running_loop().time() == 30
    assert check_shown(await world.shown())["error"]["code"] == "time_limit_exceeded"
    assert world.model.open_calls == 0


# -- When the log is away ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["away", "lost", "late", "later"])
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_log_that_stumbles_costs_time_and_nothing_else(fault: str, at: int) -> None:
    """Whether a commit of unknown outcome happened or not: it is recorded and shown once."""

    async def scenario() -> None:
        world = World(ScriptedModel(always(*says("one", "two", "three", apart=0.1))))
        flaky = FlakyStore(world.store, [""] * at + [fault, *(["away"] if fault != "later" else [])])
        follower = asyncio.create_task(world.follow())
        actor = world.actor(store=flaky)
        await actor.create(create(), start=True)
        await actor.run()
        shown = await follower
        assert check_shown(shown)["status"] == "completed"
        assert text_of(shown) == "onetwothree"
        assert [batch.first for batch in world.told][1:] == [batch.end + 1 for batch in world.told][:-1]

    virtual_time.run(scenario())


@in_virtual_time
async def test_a_create_does_not_wait_for_a_log_that_is_away() -> None:
    world = World(ScriptedModel(always()))
    with pytest.raises(StoreUnavailable):
        await world.actor(store=FlakyStore(world.store, ["away"] * 100)).create(create(), start=True)
    assert asyncio.get_running_loop().time() < 2
    assert await world.store.head(ID) is None


# -- One writer --------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_zombie_loses_its_next_commit_and_shows_nothing() -> None:
    gate = asyncio.Event()
    script: list[Step] = [[ItemOpened("message"), TextDelta("a")], gate, [TextDelta("zombie")], [ENDED]]
    world = World(ScriptedModel(in_turn(script, says("Hello"))))
    zombie = world.actor("host-1")
    await zombie.create(create(resume="fail"), start=True)
    running = asyncio.create_task(zombie.run())
    await settle()
    heir = world.actor("host-2")
    await heir.resume(await world.head())
    await heir.run()
    told = len(world.told)
    gate.set()
    with pytest.raises(ActivationLost):
        await running
    assert len(world.told) == told
    assert "zombie" not in text_of(await world.shown())
    assert check_shown(await world.shown())["error"]["code"] == "interrupted"


@in_virtual_time
async def test_what_the_former_owner_committed_while_it_was_replaced_is_not_lost() -> None:
    gate = asyncio.Event()
    first: list[Step] = [[ItemOpened("message"), TextDelta("a")], gate, [TextDelta("b")], asyncio.Event()]
    world = World(ScriptedModel(in_turn(first, says("c"))))
    former = world.actor("host-1")
    await former.create(create(), start=True)
    running = asyncio.create_task(former.run())
    await settle()

    async def meanwhile() -> None:
        gate.set()
        await settle()

    heir = world.actor("host-2", LateTake(world.store, meanwhile))
    await heir.resume(await world.head())
    await heir.run()
    shown = await world.shown()
    assert check_shown(shown)["status"] == "completed"
    assert text_of(shown) == "abc"
    assert world.model.requests[1].items[1]["content"][0]["text"] == "ab"
    running.cancel()
    await asyncio.wait({running})


@in_virtual_time
async def test_a_create_repeated_elsewhere_succeeds_and_only_the_first_runs() -> None:
    world = World(ScriptedModel(always(*says("Hello"))))
    first, second = world.actor("host-1"), world.actor("host-2")
    await first.create(create(), start=True)
    await second.create(replace(create(), at=7), start=True)
    await second.run()
    assert world.model.requests == []
    await first.run()
    assert check_shown(await world.shown())["status"] == "completed"


@in_virtual_time
async def test_a_create_whose_answer_was_lost_is_run_by_the_host_that_asks_again() -> None:
    world = World(ScriptedModel(always(*says("Hello"))))
    with pytest.raises(StoreUnavailable):
        await world.actor(store=FlakyStore(world.store, ["late"], blind=True)).create(create(), start=True)
    again = world.actor()
    await again.create(create(), start=True)
    await again.run()
    assert check_shown(await world.shown())["status"] == "completed"


@pytest.mark.parametrize("other", [{"instructions": "Something else."}, {"project": "theirs"}])
def test_an_id_that_belongs_to_another_request_is_refused(other: dict[str, Any]) -> None:
    async def scenario() -> None:
        world = World(ScriptedModel(always()))
        await world.actor().create(create(), start=False)
        with pytest.raises(WrongExpectedVersion):
            await world.actor().create(create(**other), start=False)

    virtual_time.run(scenario())


@in_virtual_time
async def test_a_stream_of_a_newer_vocabulary_is_left_alone() -> None:
    world = World(ScriptedModel(always()))
    await world.actor().create(create(), start=False)
    head = await world.head()
    newer = Append(ID, head.version, head.epoch, [NewEvent("text_sung", b"{}")], change=HeadChange())
    await world.store.append(Unit([newer]))
    with pytest.raises(UnknownEvent):
        await world.actor().resume(await world.head())
    with pytest.raises(UnknownEvent):
        await world.actor().cancel("key_1")
    assert (await world.head()).epoch == head.epoch


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
    assert (head.category, head.attributes["background"]) == ("transient", "false")
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
