"""What a response actor records and shows: an answer, a model or a log that fails, a second writer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from actors.response_actor import ActivationLost
from eventstore.errors import StoreUnavailable, WrongExpectedVersion
from eventstore.events import Append, HeadChange, NewEvent, Unit
from runtime.model import CallEnded, ItemClosed, ItemOpened, ModelError, TextDelta, Usage
from runtime.response import events as e
from runtime.response.errors import UnknownEvent
from runtime.response.replay import ResponseReplay
from runtime.resume import GO_ON
from tests import virtual_time
from tests.unit.actors.kit import (
    BUSY,
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
    run,
    says,
    settle,
    text_of,
)
from tests.virtual_time import in_virtual_time

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
