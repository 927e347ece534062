"""An answer whose hosts die at every possible moment reads as one (the design's invariants 2, 4, 5 and 7)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest

from runtime.agent_loop import TRIES_MAX
from runtime.model import (
    CallEnded,
    ItemClosed,
    ItemOpened,
    ModelError,
    ModelEvent,
    ModelRequest,
    TextDelta,
    Usage,
)
from runtime.response import events as e
from runtime.resume import GO_ON
from tests import virtual_time
from tests.unit.actors.kit import (
    ID,
    CrashingStore,
    FlakyStore,
    Script,
    ScriptedModel,
    Step,
    World,
    call_of,
    check_shown,
    create,
    in_reads,
    live_through,
    settle,
    text_of,
    thought,
)

WORDS = 5
CUT = ModelError("upstream_interrupted", "The upstream broke off.", retryable=True)


def counting(vary: bool, cut_after: int | None = None) -> Script:
    """A model that counts up to `WORDS`, one number a word, and truly goes on where it is told to.

    With `vary` every call spells its numbers with another letter.  Its chunks never lie as they lay before.
    With `cut_after` its first two calls break off after so many chunks.
    """

    def script(request: ModelRequest, number: int) -> Iterator[Step]:
        letter = "abcdefghijklmnopqrst"[number] if vary else "w"
        text = "".join(f" {letter}{n}" for n in range(WORDS))
        text = text[len(half_said(request)) :]
        yield [ItemOpened("message")]
        size = 2 + number % 3
        for chunk, at in enumerate(range(0, len(text), size)):
            if chunk == cut_after and number < 2:
                yield CUT
            yield [TextDelta(text[at : at + size])]
            yield 0.01
        yield [ItemClosed(), CallEnded("stop", Usage(1, WORDS))]

    return script


def half_said(request: ModelRequest) -> str:
    """What the model is told to go on with."""
    if request.goes_on:
        return str(request.items[-1]["content"][0]["text"])
    *_, message, last = ({}, *request.items)
    asked = last.get("content") or [{}]
    return str(message["content"][0]["text"]) if asked[0].get("text") == GO_ON else ""


def counted(text: str) -> list[int]:
    """The numbers of a text in which every word is whole."""
    assert re.fullmatch(r"( [a-z]\d)*", text), text
    return [int(n) for n in re.findall(r"\d", text)]


def appends_of(script: Script, resume: str) -> int:
    async def scenario() -> int:
        world = World(ScriptedModel(script))
        whole = CrashingStore(world.store, at=10_000, committed=False)
        await live_through(world, create(resume=resume), [whole])
        return whole.appends

    return virtual_time.run(scenario())


@pytest.mark.parametrize("vary", [pytest.param(False, marks=pytest.mark.thorough), True])
@pytest.mark.parametrize("resume", ["repeat", "prompt", "prefix"])
def test_a_host_dies_at_every_append_and_the_answer_reads_as_one(resume: str, vary: bool) -> None:
    """Also where the commit happened and nobody heard of it, and where the next host dies as well."""
    appends = appends_of(counting(vary), resume)
    assert appends > WORDS
    for at in range(appends):
        for committed in (False, True):
            for again in (None, 2):
                virtual_time.run(_dies(counting(vary), resume, at, committed, again))


async def _dies(script: Script, resume: str, at: int, committed: bool, again: int | None) -> None:
    world = World(ScriptedModel(script))
    first = CrashingStore(world.store, at, committed)
    second = [] if again is None else [CrashingStore(world.store, again, committed)]
    shown = await live_through(world, create(resume=resume), [first, *second, None])
    final = check_shown(shown)
    assert final["status"] == "completed"
    assert counted(text_of(shown)) == list(range(WORDS)), (at, committed, again)
    assert len(final["output"]) == 1, "the same item went on"
    assert shown == await world.shown(), "whoever followed live saw what a replay shows"
    assert ("model_call_started",) not in await world.commits(), "what shows nothing rides with what does"
    seams = [event.resume for event in await world.events() if isinstance(event, e.ModelCallStarted)]
    assert ("prompt", "repeat") not in pairwise(seams), "who worded it anew once is not asked to repeat it"
    epochs = [record.epoch async for record in world.store.read(ID)]
    assert epochs == sorted(epochs)


@pytest.mark.parametrize("vary", [False, True])
@pytest.mark.parametrize("resume", ["repeat", "prompt", "prefix"])
@pytest.mark.parametrize("cut_after", [0, 1, 5])
def test_an_upstream_that_breaks_off_twice_is_asked_again(resume: str, vary: bool, cut_after: int) -> None:
    """The log says where the seams are, and what the client reads is one answer."""

    async def scenario() -> None:
        world = World(ScriptedModel(counting(vary, cut_after)))
        shown = await live_through(world, create(resume=resume), [None])
        assert check_shown(shown)["status"] == "completed"
        assert counted(text_of(shown)) == list(range(WORDS))
        calls = [event for event in await world.events() if isinstance(event, e.ModelCallStarted)]
        assert [call.attempt for call in calls] == list(range(len(calls)))
        seams = {call.resume for call in calls[1:]}
        assert seams == (
            {"again"} if cut_after == 0 else {"repeat", "prompt"} if vary and resume == "repeat" else {resume}
        )

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("retries", "tries", "code"), [(2, 3, "upstream_interrupted"), (100, TRIES_MAX, "interrupted")]
)
def test_an_upstream_that_keeps_breaking_off_is_given_up(retries: int, tries: int, code: str) -> None:
    async def scenario() -> None:
        def script(request: ModelRequest, number: int) -> list[Step]:
            return [[ItemOpened("message"), TextDelta(f" {'ab'[number // 10]}{number % 10}")], CUT]

        world = World(ScriptedModel(script))
        shown = await live_through(world, create(resume="prompt", retries=retries), [None])
        assert len(world.model.requests) == tries
        final = check_shown(shown)
        assert (final["status"], final["error"]["code"]) == ("failed", code)
        assert counted(text_of(shown)) == [n % 10 for n in range(tries)]

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("refusal", "tries"),
    [
        (ModelError("invalid_prompt", "It must end with a user message."), 3),
        (ModelError("server_error", "Cannot prefill.", retryable=True), 3),
        (ModelError("upstream_unreachable", "It is away.", retryable=True), 3),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_a_server_that_cannot_continue_half_a_message_is_asked_in_words(
    refusal: ModelError, tries: int
) -> None:
    """One that is only away is asked to continue once more."""

    async def scenario() -> None:
        def script(request: ModelRequest, number: int) -> Iterator[Step]:
            if number == 1:
                yield refusal
            yield from counting(vary=False, cut_after=2)(request, number)

        world = World(ScriptedModel(script))
        shown = await live_through(world, create(resume="prefix"), [None])
        assert check_shown(shown)["status"] == "completed"
        assert counted(text_of(shown)) == list(range(WORDS))
        assert len(world.model.requests) == tries
        asked = [request.goes_on for request in world.model.requests]
        assert asked == [False, True, refusal.code == "upstream_unreachable"]

    virtual_time.run(scenario())


@pytest.mark.parametrize("crashes", [True, False])
def test_where_the_configuration_says_fail_an_interrupted_answer_fails(crashes: bool) -> None:
    async def scenario() -> None:
        world = World(ScriptedModel(counting(vary=False, cut_after=None if crashes else 3)))
        stores = [CrashingStore(world.store, 3, committed=True), None] if crashes else [None]
        shown = await live_through(world, create(resume="fail"), stores)
        final = check_shown(shown)
        assert (final["status"], final["error"]["code"]) == ("failed", "interrupted")
        assert len(world.model.requests) == 1
        assert asyncio.get_running_loop().time() < 0.5, "nobody waits for a further try that never comes"

    virtual_time.run(scenario())


def test_a_response_that_takes_every_host_with_it_is_ended() -> None:
    async def scenario() -> None:
        world = World(ScriptedModel(counting(vary=False)))
        deadly = [CrashingStore(world.store, 1, committed=False) for _ in range(7)]
        shown = await live_through(world, create(), [CrashingStore(world.store, 1, False), *deadly, None])
        final = check_shown(shown)
        assert (final["status"], final["error"]["code"]) == ("failed", "interrupted")

    virtual_time.run(scenario())


# -- Function calls and reasoning --------------------------------------------------------------------------


def calling(vary: bool) -> Script:
    """A model that thinks, then calls two functions, in small pieces."""

    def script(request: ModelRequest, number: int) -> Iterator[Step]:
        mark = f"{number}" if vary else "x"
        yield from in_reads(
            [
                *thought("Which ", "city ", mark, "?"),
                *call_of("weather", '{"ci', f'ty":"{mark}', '"}', call_id=f"call_{number}_a"),
                *call_of("time", '{"zo', f'ne":"{mark}', '"}', call_id=f"call_{number}_b"),
                CallEnded("tool_calls", Usage(1, 1)),
            ],
            apart=0.01,
        )

    return script


@pytest.mark.parametrize("vary", [False, pytest.param(True, marks=pytest.mark.thorough)])
@pytest.mark.parametrize(
    "resume", ["prompt", *(pytest.param(other, marks=pytest.mark.thorough) for other in ("repeat", "prefix"))]
)
def test_half_a_function_call_never_reaches_a_client_as_a_whole_one(resume: str, vary: bool) -> None:
    """Whatever is interrupted: a call that is shown completed is whole, and said once."""

    async def scenario(at: int, again: int | None) -> None:
        world = World(ScriptedModel(calling(vary)))
        second = [] if again is None else [CrashingStore(world.store, again, committed=True)]
        stores = [CrashingStore(world.store, at, committed=True), *second, None]
        shown = await live_through(world, create(resume=resume), stores)
        final = check_shown(shown)
        assert final["status"] == "completed"
        whole = [item for item in final["output"] if item["status"] == "completed"]
        calls = [item for item in whole if item["type"] == "function_call"]
        for call in calls:
            assert re.fullmatch(r'\{"(city|zone)":"[0-9x]"\}', call["arguments"])
        names = [call["name"] for call in calls]
        assert names in (["weather", "time"], ["weather"] if vary else [])
        if not vary:
            kinds = [(item["type"], item["status"]) for item in final["output"]]
            assert kinds == [("reasoning", "completed"), *[("function_call", "completed")] * 2], "it went on"
        done = [event for event in shown if event["type"] == "response.function_call_arguments.done"]
        assert [event["arguments"] for event in done] == [call["arguments"] for call in calls]

    for at in range(appends_of(calling(vary), resume)):
        for again in (None, 2, 4):
            virtual_time.run(scenario(at, again))


def test_a_function_call_after_half_a_message_closes_the_message() -> None:
    """The model that was to go on with its text wants to call a function instead."""

    async def scenario() -> None:
        def script(request: ModelRequest, number: int) -> list[Step]:
            if number == 0:
                return [[ItemOpened("message"), TextDelta("Let me see.")], CUT]
            thinks: list[ModelEvent] = thought("How to go on?")
            return [[*thinks, *call_of("weather", "{}"), CallEnded("tool_calls", Usage(1, 1))]]

        world = World(ScriptedModel(script))
        shown = await live_through(world, create(), [None])
        final = check_shown(shown)
        kinds = [(item["type"], item["status"]) for item in final["output"]]
        assert kinds == [("message", "completed"), ("function_call", "completed")]

    virtual_time.run(scenario())


# -- Cancel against complete -------------------------------------------------------------------------------


def test_cancel_races_completion_in_every_interleaving() -> None:
    """Whoever ends it first wins, and there is one end (invariant 5)."""

    def script(request: ModelRequest, number: int) -> Iterator[Step]:
        yield [ItemOpened("message"), TextDelta(" w0")]
        yield [TextDelta(" w1")]
        yield [ItemClosed(), CallEnded("stop", Usage(1, 2))]

    async def scenario(steps: int, elsewhere: bool, faults: Sequence[str]) -> str:
        world = World(ScriptedModel(script))
        actor = world.actor(store=FlakyStore(world.store, list(faults)))
        creation = asyncio.create_task(actor.create(create(), start=True))
        follower = asyncio.create_task(world.follow())
        await asyncio.sleep(0)
        await creation
        running = asyncio.create_task(actor.run())
        for _ in range(steps):
            await asyncio.sleep(0)
        await (world.actor("host-2") if elsewhere else actor).cancel("key_1")
        await asyncio.wait({running})
        shown = await follower
        final = check_shown(shown)
        await settle()
        assert shown == await world.shown()
        assert (await world.head()).state == final["status"]
        assert world.model.open_calls == 0
        return str(final["status"])

    for elsewhere in (False, True):
        for faults in ([], ["", "late"], ["", "", "lost"]):
            ends = {virtual_time.run(scenario(steps, elsewhere, faults)) for steps in range(40)}
            assert ends == ({"cancelled", "completed"} if not faults else ends)
            assert ends <= {"cancelled", "completed"}
