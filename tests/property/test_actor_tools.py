"""Tools that the server runs: nothing is done twice, whatever dies when (the design's invariant 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from actors.response_actor import ActivationLost, ResponseActor
from runtime.catalog import Limits
from runtime.model import CallEnded, ModelEvent, ModelRequest, Usage
from runtime.response import events as e
from runtime.tool import OUTPUT_CHARS, Tool, ToolError
from runtime.tool_calls import AT_ONCE, OUTCOME_UNKNOWN, STOPPING
from tests import virtual_time
from tests.unit.actors.kit import (
    ID,
    CrashingStore,
    Script,
    ScriptedModel,
    Step,
    World,
    call_of,
    check_shown,
    create,
    in_reads,
    live_through,
    says,
    settle,
    text_of,
    thought,
)

SPEND: Mapping[str, Any] = {"type": "function", "name": "spend", "parameters": {}, "python": "tests:spend"}


@dataclass
class Purse:
    """A tool whose effects are counted: each run spends something as soon as it begins."""

    idempotent: bool = False
    timeout_s: float = 60.0
    takes_s: float = 0.05
    spent: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    running: int = 0
    most_at_once: int = 0
    failure: Exception | None = None

    async def run(self, arguments: Mapping[str, Any], key: str) -> str:
        self.spent.append((key, arguments))
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.running -= 1
        if self.failure is not None:
            raise self.failure
        return f"spent {arguments.get('amount')}"

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.spent]


def spending(calls: int = 1, turns: int = 1) -> Script:
    """A model that thinks, spends so many times in each of so many turns, and then tells what it was told."""

    def script(request: ModelRequest, number: int) -> Iterator[Step]:
        told = [item["output"] for item in request.items if item["type"] == "function_call_output"]
        if len(told) >= calls * turns or request.tool_choice == "none":
            yield from says(" | ".join(told), apart=0.01)
            return
        events: list[ModelEvent] = thought("Which?")
        for n in range(calls):
            amount = len(told) + n
            events += call_of("spend", '{"amo', f'unt":{amount}', "}", call_id=f"call_{amount}")
        yield from in_reads([*events, CallEnded("tool_calls", Usage(10, 2))], apart=0.01)

    return script


def paired(items: Sequence[Mapping[str, Any]]) -> None:
    """Every call has its output, once, and behind it."""
    for call_id in {item["call_id"] for item in items if "call_id" in item}:
        about = [item["type"] for item in items if item.get("call_id") == call_id]
        assert about == ["function_call", "function_call_output"]


def tools_of(events: Sequence[e.Event]) -> list[e.ToolStarted | e.ToolFinished]:
    return [event for event in events if isinstance(event, e.ToolStarted | e.ToolFinished)]


def test_a_tool_runs_between_two_calls_and_the_client_sees_call_and_output() -> None:
    async def scenario() -> None:
        purse = Purse()
        world = World(ScriptedModel(spending()), {"spend": purse})
        shown = await live_through(world, create(tools=[SPEND]), [None])
        final = check_shown(shown)
        kinds = ["reasoning", "function_call", "function_call_output", "message"]
        assert [item["type"] for item in final["output"]] == kinds
        _, call, output, message = final["output"]
        assert (output["call_id"], output["output"], output["status"]) == ("call_0", "spent 0", "completed")
        assert message["content"][0]["text"] == "spent 0"
        assert purse.spent == [(call["id"], {"amount": 0})], "the key is the call's own id"
        assert final["usage"]["input_tokens"] == 13, "of both calls"
        assert shown == await world.shown()
        first, second = world.model.requests
        assert [item["type"] for item in second.items[-3:]] == kinds[:3]
        assert "python" not in first.tools[0], "how it is run is no model's business"
        commits = await world.commits()
        started = next(n for n, types in enumerate(commits) if "tool_started" in types)
        assert commits[started : started + 2] == [("tool_started",), ("tool_finished",)]

    virtual_time.run(scenario())


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize(
    ("calls", "turns"),
    [(1, 1), *(pytest.param(*more, marks=pytest.mark.thorough) for more in ((3, 1), (1, 2)))],
)
def test_a_host_dies_at_every_append_and_no_tool_runs_twice(idempotent: bool, calls: int, turns: int) -> None:
    """Not idempotent: at most once, and the model is told. Idempotent: as often as it takes, with one key."""

    async def scenario(at: int, committed: bool, again: int | None) -> None:
        purse = Purse(idempotent=idempotent)
        world = World(ScriptedModel(spending(calls, turns)), {"spend": purse})
        second = [] if again is None else [CrashingStore(world.store, again, committed)]
        stores = [CrashingStore(world.store, at, committed), *second, None]
        shown = await live_through(world, create(tools=[SPEND], resume="repeat"), stores)
        final = check_shown(shown)
        assert final["status"] == "completed"
        assert shown == await world.shown()
        whole = [item for item in final["output"] if item["status"] == "completed"]
        paired(whole)
        outputs = {
            item["call_id"]: item["output"] for item in whole if item["type"] == "function_call_output"
        }
        assert len(outputs) == calls * turns
        assert text_of(shown) == " | ".join(outputs.values()), "the model heard of each once"
        amounts = [arguments["amount"] for _, arguments in purse.spent]
        if idempotent:
            assert set(amounts) == set(range(calls * turns))
            assert len(set(purse.keys)) == calls * turns, "the same call has the same key"
            assert OUTCOME_UNKNOWN not in outputs.values()
        else:
            assert len(set(amounts)) == len(amounts), "at most once"
            for call_id, output in outputs.items():
                amount = int(call_id.removeprefix("call_"))
                assert output in (f"spent {amount}", OUTCOME_UNKNOWN)
                assert amount in amounts or output == OUTCOME_UNKNOWN

    async def appends() -> int:
        world = World(ScriptedModel(spending(calls, turns)), {"spend": Purse()})
        whole = CrashingStore(world.store, at=10_000, committed=False)
        await live_through(world, create(tools=[SPEND]), [whole])
        return whole.appends

    for at in range(virtual_time.run(appends())):
        for committed in (False, True):
            for again in (None, 2):
                virtual_time.run(scenario(at, committed, again))


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_host_dies_while_the_tool_runs(idempotent: bool) -> None:
    async def scenario() -> None:
        purse = Purse(idempotent=idempotent, takes_s=10)
        world = World(ScriptedModel(spending()), {"spend": purse})
        actor = world.actor()
        await actor.create(create(tools=[SPEND]), start=True)
        life = asyncio.create_task(actor.run())
        await until(lambda: purse.running == 1)
        life.cancel()
        await asyncio.wait({life})
        assert purse.running == 0, "whoever stops the actor stops its tool"
        other = world.actor("host-2")
        await other.resume(await world.head())
        await other.run()
        final = check_shown(await world.shown())
        assert final["status"] == "completed"
        output = next(item for item in final["output"] if item["type"] == "function_call_output")
        events = tools_of(await world.events())
        if idempotent:
            assert purse.keys == [purse.keys[0]] * 2
            assert output["output"] == "spent 0"
            assert [type(event).__name__ for event in events] == [
                "ToolStarted",
                "ToolStarted",
                "ToolFinished",
            ]
            assert [event.attempt for event in events if isinstance(event, e.ToolStarted)] == [0, 1]
        else:
            assert len(purse.keys) == 1
            assert output["output"] == OUTCOME_UNKNOWN
            assert events[-1] == e.ToolFinished("call_0", OUTCOME_UNKNOWN, "outcome_unknown")
        assert len(world.model.requests) == 2, "the model is not asked for its calls again"

    virtual_time.run(scenario())


def test_cancel_stops_the_tool_and_ends_the_response() -> None:
    async def scenario() -> None:
        purse = Purse(takes_s=1000)
        world = World(ScriptedModel(spending()), {"spend": purse})
        actor = world.actor()
        await actor.create(create(tools=[SPEND]), start=True)
        life = asyncio.create_task(actor.run())
        await until(lambda: purse.running == 1)
        await actor.cancel("key_1")
        await life
        await settle()
        assert purse.running == 0
        assert asyncio.get_running_loop().time() < 1
        final = check_shown(await world.shown())
        assert final["status"] == "cancelled"
        assert [item["type"] for item in final["output"]] == ["reasoning", "function_call"]

    virtual_time.run(scenario())


def test_a_tool_that_will_not_stop_holds_up_nobody_for_long() -> None:
    """Cancelled, it is waited for a little and then left to itself; what it says then is dropped."""

    class Stubborn(Purse):
        async def run(self, arguments: Mapping[str, Any], key: str) -> str:
            self.running += 1
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(100)
                    return "too late"

    async def scenario() -> None:
        tool = Stubborn()
        world = World(ScriptedModel(spending()), {"spend": tool})
        actor = world.actor()
        await actor.create(create(tools=[SPEND]), start=True)
        life = asyncio.create_task(actor.run())
        await until(lambda: tool.running == 1)
        began = asyncio.get_running_loop().time()
        await actor.cancel("key_1")
        await life
        assert asyncio.get_running_loop().time() - began <= STOPPING
        await asyncio.sleep(200)
        assert check_shown(await world.shown())["status"] == "cancelled"

    virtual_time.run(scenario())


def test_a_tool_counts_towards_the_time_limit() -> None:
    async def scenario() -> None:
        purse = Purse(takes_s=1000, timeout_s=5000)
        world = World(ScriptedModel(spending()), {"spend": purse})
        final = check_shown(await live_through(world, create(tools=[SPEND], seconds=30), [None]))
        assert (final["status"], final["error"]["code"]) == ("failed", "time_limit_exceeded")
        assert asyncio.get_running_loop().time() == 30
        assert purse.running == 0

    virtual_time.run(scenario())


def test_a_tool_that_cannot_be_opened_is_told_and_the_model_goes_on() -> None:
    """Its module may have gone since the response began."""

    async def scenario() -> None:
        def gone(tool: Mapping[str, Any]) -> Tool:
            raise ToolError("'tests:spend' cannot be imported.")

        world = World(ScriptedModel(spending()))
        actor = ResponseActor(replace(world.ports(), open_tool=gone), ID)
        await actor.create(create(tools=[SPEND]), start=True)
        await actor.run()
        final = check_shown(await world.shown())
        assert final["status"] == "completed"
        told = "The tool was not run. 'tests:spend' cannot be imported."
        assert final["output"][-1]["content"][0]["text"] == told

    virtual_time.run(scenario())


def test_an_output_that_is_too_long_is_cut_off_and_says_so() -> None:
    async def scenario() -> None:
        class Talkative(Purse):
            async def run(self, arguments: Mapping[str, Any], key: str) -> str:
                return "x" * (OUTPUT_CHARS + 5) + "\ud83d"

        world = World(ScriptedModel(spending()), {"spend": Talkative()})
        await live_through(world, create(tools=[SPEND]), [None])
        [finished] = [event for event in await world.events() if isinstance(event, e.ToolFinished)]
        assert finished.output == "x" * OUTPUT_CHARS + f"\n[cut off here: {OUTPUT_CHARS + 6} characters]"

    virtual_time.run(scenario())


def test_a_tool_that_takes_too_long_and_one_that_fails_are_told_to_the_model() -> None:
    async def told(purse: Purse) -> tuple[str, str | None]:
        world = World(ScriptedModel(spending()), {"spend": purse})
        final = check_shown(await live_through(world, create(tools=[SPEND]), [None]))
        assert final["status"] == "completed"
        [finished] = [event for event in await world.events() if isinstance(event, e.ToolFinished)]
        assert final["output"][-1]["content"][0]["text"] == finished.output
        return finished.output, finished.error

    late = "The tool did not answer within 2 s. Whether it took effect is unknown."
    assert virtual_time.run(told(Purse(timeout_s=2, takes_s=1000))) == (late, "timeout")
    own = Purse(failure=TimeoutError("no route"))
    assert virtual_time.run(told(own)) == ("The tool failed. TimeoutError: no route", "failed")
    plain = Purse(failure=ToolError("The purse is\n empty."))
    assert virtual_time.run(told(plain)) == ("The tool failed. The purse is empty.", "failed")
    long = Purse(failure=ValueError("x" * 5000))
    text, error = virtual_time.run(told(long))
    assert (len(text) < 600, error, "Traceback" in text) == (True, "failed", False)


@pytest.mark.parametrize("arguments", ["[1]", "{", '"x"'])
def test_what_is_no_json_object_runs_nothing(arguments: str) -> None:
    async def scenario() -> None:
        def script(request: ModelRequest, number: int) -> list[Step]:
            if number:
                return says("Sorry.")
            return [[*call_of("spend", arguments), CallEnded("tool_calls", Usage())]]

        purse = Purse()
        world = World(ScriptedModel(script), {"spend": purse})
        final = check_shown(await live_through(world, create(tools=[SPEND]), [None]))
        assert (final["status"], purse.spent) == ("completed", [])
        [finished] = tools_of(await world.events())
        assert isinstance(finished, e.ToolFinished)
        assert (finished.error, "no JSON" in finished.output) == ("refused", True)

    virtual_time.run(scenario())


def test_calls_of_one_turn_run_side_by_side_and_not_too_many() -> None:
    async def scenario(calls: int) -> Purse:
        purse = Purse(takes_s=1)
        world = World(ScriptedModel(spending(calls)), {"spend": purse})
        final = check_shown(await live_through(world, create(tools=[SPEND]), [None]))
        assert final["status"] == "completed"
        assert len(purse.spent) == calls
        return purse

    assert virtual_time.run(scenario(3)).most_at_once == 3
    assert virtual_time.run(scenario(AT_ONCE + 3)).most_at_once == AT_ONCE


@pytest.mark.parametrize(
    ("limits", "asked", "made", "turns", "end"),
    [
        (Limits(), {"max_tool_calls": 2}, 2, 2, ("completed", None)),
        (Limits(max_tool_calls=3), {"max_tool_calls": 9}, 3, 3, ("completed", None)),
        (Limits(max_model_calls=3), {}, 4, 3, ("completed", None)),
        (Limits(max_model_calls=1), {}, 0, 1, ("incomplete", "max_messages")),
        (Limits(), {"max_output_tokens": 4}, 2, 2, ("incomplete", "max_output_tokens")),
        (Limits(), {}, 62, 32, ("completed", None)),
    ],
    ids=["asked", "agent", "turns", "one turn", "tokens", "default"],
)
def test_a_model_that_calls_for_ever_is_stopped(
    limits: Limits, asked: Any, made: int, turns: int, end: tuple[str, str | None]
) -> None:
    """Two calls a turn; every call has an output, also one that was not made."""

    async def scenario() -> None:
        purse = Purse()
        world = World(ScriptedModel(spending(2, turns=1000)), {"spend": purse})
        final = check_shown(await live_through(world, create(tools=[SPEND], limits=limits, **asked), [None]))
        assert (final["status"], (final["incomplete_details"] or {}).get("reason")) == end
        assert (len(purse.spent), len(world.model.requests)) == (made, turns)
        paired(final["output"])

    virtual_time.run(scenario())


def test_what_the_client_runs_ends_the_response_and_what_the_server_runs_is_answered() -> None:
    """Both in one turn; and the next response has all outputs."""

    async def scenario() -> None:
        def script(request: ModelRequest, number: int) -> list[Step]:
            both = [*call_of("spend", "{}", call_id="call_s"), *call_of("theirs", "{}", call_id="call_t")]
            return [[*both, CallEnded("tool_calls", Usage())]]

        world = World(ScriptedModel(script), {"spend": Purse()})
        theirs = {
            "type": "function",
            "name": "theirs",
            "description": None,
            "parameters": None,
            "strict": None,
        }
        fake = {**theirs, "name": "spend"}
        command = create(tools=[SPEND], request_tools=(theirs, fake))
        final = check_shown(await live_through(world, command, [None]))
        assert final["status"] == "completed"
        kinds = [(item["type"], item["call_id"]) for item in final["output"]]
        assert kinds == [
            ("function_call", "call_s"),
            ("function_call", "call_t"),
            ("function_call_output", "call_s"),
        ]
        assert len(world.model.requests) == 1
        assert [tool["name"] for tool in world.model.requests[0].tools] == ["theirs", "spend"]
        assert world.model.requests[0].tools[1]["parameters"] == {}, "no client replaces what the server runs"

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("choice", "then"),
    [
        ("required", "auto"),
        ({"type": "function", "name": "spend"}, "auto"),
        ("auto", "auto"),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "spend"}]},
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "spend"}]},
        ),
    ],
)
def test_who_was_made_to_call_a_tool_is_free_once_it_has_answered(choice: Any, then: Any) -> None:
    async def scenario() -> None:
        world = World(ScriptedModel(spending()), {"spend": Purse()})
        await live_through(world, create(tools=[SPEND], tool_choice=choice), [None])
        assert [request.tool_choice for request in world.model.requests] == [choice, then]

    virtual_time.run(scenario())


async def until(condition: Any) -> None:
    """Wait for it in virtual time."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to that")


def test_a_zombie_runs_no_tool() -> None:
    """Its intent is refused by the log, before any effect."""

    async def scenario() -> None:
        purse = Purse()

        world = World(ScriptedModel(spending()), {"spend": purse})

        class Fencing:
            """A way to the log on which another host takes the stream right before the intent."""

            def __getattr__(self, name: str) -> Any:
                return getattr(world.store, name)

            async def append(self, unit: Any) -> Any:
                if any(event.type == "tool_started" for event in unit.appends[0].events):
                    head = await world.head()
                    await world.store.take(head.stream, epoch=head.epoch, owner="host-2")
                return await world.store.append(unit)

        actor: ResponseActor = world.actor(store=Fencing())
        await actor.create(create(tools=[SPEND]), start=True)
        with pytest.raises(ActivationLost):
            await actor.run()
        assert (await world.head()).owner == "host-2"
        assert purse.spent == []

    virtual_time.run(scenario())
