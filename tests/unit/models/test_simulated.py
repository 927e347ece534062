"""The documented rules of `simulated` (docs/models.md)."""

import json
from typing import Any

import jsonschema
import pytest

from runtime.model import ItemOpened, SummaryDelta, TextDelta
from runtime.models.simulated import SimulatedModel
from runtime.models.simulated_script import READERS, parse
from runtime.resume import GO_ON, WHAT_IS_LEFT
from tests.unit.models.calls import WEATHER, ask, call, user

MODEL = SimulatedModel()


async def test_says_that_it_is_simulated_and_echoes_the_last_user_message() -> None:
    said = await call(MODEL, ask("simulated", user("first"), user("How are\nyou?")))
    assert said.items == [("message", "This answer is simulated. You wrote: How are you?")]
    assert said.end.finish == "stop"
    assert said.end.usage.output_tokens == len(said.pieces)
    assert said.end.usage.input_tokens > 0


async def test_names_the_images_and_files_of_the_question() -> None:
    content = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
        {"type": "input_file", "file_data": "AA=="},
    ]
    said = await call(MODEL, ask("simulated", {"role": "user", "content": content}))
    assert said.items[0][1].endswith("You wrote: look (with 1 image and 1 file)")


async def test_same_request_same_words_and_pieces_whatever_the_attempt() -> None:
    one = await call(MODEL, ask("simulated?deltas=80", user("hi"), seed="resp_1/0"))
    two = await call(MODEL, ask("simulated?deltas=80", user("hi"), seed="resp_1/1"))
    assert one.events == two.events
    assert len(one.pieces) == 80
    assert len(set(one.pieces[40:])) == 40, "every further word is another one: a doubled one shows"


async def test_vary_words_every_attempt_differently() -> None:
    one = await call(MODEL, ask("simulated?vary=1&deltas=9", user("hi"), seed="resp_1/0"))
    two = await call(MODEL, ask("simulated?vary=1&deltas=9", user("hi"), seed="resp_1/1"))
    again = await call(MODEL, ask("simulated?vary=1&deltas=9", user("hi"), seed="resp_1/1"))
    assert one.pieces != two.pieces
    assert two.pieces == again.pieces


@pytest.mark.parametrize("said_chars", [1, 4, 30, 100])
async def test_asked_to_go_on_it_says_only_the_rest(said_chars: int) -> None:
    whole = (await call(MODEL, ask("simulated?deltas=40", user("hi")))).items[0][1]
    half = _said(whole[:said_chars])
    rest = await call(MODEL, ask("simulated?deltas=40", user("hi"), half, user(GO_ON), tools=[WEATHER]))
    assert whole[:said_chars] + rest.items[0][1] == whole
    continued = await call(MODEL, ask("simulated?deltas=40", user("hi"), half, goes_on=True))
    assert continued.items == rest.items
    nothing = await call(MODEL, ask("simulated", user("hi"), _said(await _whole("hi")), user(WHAT_IS_LEFT)))
    assert nothing.items == []
    assert nothing.end.finish == "stop"


def _said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


async def _whole(asked: str) -> str:
    return (await call(MODEL, ask("simulated", user(asked)))).items[0][1]


async def test_calls_the_first_function_once_then_answers_with_its_output() -> None:
    other = {**WEATHER, "name": "other"}
    request = ask("simulated", user("Weather?"), tools=[{"type": "mcp"}, WEATHER, other])
    said = await call(MODEL, request)
    assert said.end.finish == "tool_calls"
    [(name, arguments)] = said.items
    assert name == "get_weather"
    jsonschema.validate(json.loads(arguments), WEATHER["parameters"])
    opened = next(event for event in said.events if isinstance(event, ItemOpened))
    assert opened.call_id.startswith("call_")

    made = {"type": "function_call", "name": name, "call_id": opened.call_id, "arguments": arguments}
    output = {"type": "function_call_output", "call_id": opened.call_id, "output": "12 degrees"}
    answer = await call(MODEL, ask("simulated", user("Weather?"), made, output, tools=[WEATHER]))
    assert answer.items == [
        ("message", "This answer is simulated. The tool get_weather answered: 12 degrees")
    ]
    anew = await call(
        MODEL, ask("simulated", user("Weather?"), made, output, user("And now?"), tools=[WEATHER])
    )
    assert [name for name, _ in anew.items] == ["get_weather"], "each user turn gets its call"


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("none", "message"),
        ("auto", "first"),
        ("required", "first"),
        ({"type": "function", "name": "second"}, "second"),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "second"}]},
            "second",
        ),
        (
            {"type": "allowed_tools", "mode": "none", "tools": [{"type": "function", "name": "second"}]},
            "message",
        ),
    ],
)
async def test_obeys_tool_choice(choice: Any, called: str) -> None:
    tools: list[dict[str, Any]] = [
        {"type": "function", "name": name, "parameters": {}} for name in ("first", "second")
    ]
    said = await call(MODEL, ask("simulated", user("go"), tools=tools, tool_choice=choice))
    assert [name for name, _ in said.items] == [called]
    without = await call(MODEL, ask("simulated?tool=0", user("go"), tools=tools, tool_choice=choice))
    assert [name for name, _ in without.items] == ["message"]


@pytest.mark.parametrize("choice", ["required", {"type": "allowed_tools", "mode": "required"}])
async def test_calls_one_function_after_the_other_where_a_call_is_required(choice: Any) -> None:
    """An agent that answers by a tool of its own has it called once it has run the others."""
    tools: list[dict[str, Any]] = [
        {"type": "function", "name": name, "parameters": {}} for name in ("look", "answer")
    ]
    if choice != "required":
        choice = {**choice, "tools": tools}
    items: list[dict[str, Any]] = [user("go")]
    said = []
    for number in range(3):
        ((name, arguments),) = (
            await call(MODEL, ask("simulated", *items, tools=tools, tool_choice=choice))
        ).items
        said.append(name)
        made = {"type": "function_call", "name": name, "call_id": f"call_{number}", "arguments": arguments}
        items += [made, {"type": "function_call_output", "call_id": f"call_{number}", "output": "12"}]
    assert said == ["look", "answer", "message"]


async def test_answers_with_json_that_fits_when_asked_for_it() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 5}}, "required": ["n"]}
    form = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    said = await call(MODEL, ask("simulated", user("go"), text=form))
    jsonschema.validate(json.loads(said.items[0][1]), schema)
    loose = await call(MODEL, ask("simulated", user("go"), text={"format": {"type": "json_object"}}))
    assert json.loads(loose.items[0][1]) == {"simulated": True, "echo": "go"}


async def test_reasons_before_it_answers_and_sums_up_on_request() -> None:
    said = await call(MODEL, ask("simulated?reasoning=3&deltas=2", user("go"), reasoning={"summary": "auto"}))
    assert [kind for kind, _ in said.items] == ["reasoning", "message"]
    assert any(isinstance(event, SummaryDelta) for event in said.events)
    assert said.end.usage.reasoning_tokens == 4
    assert said.end.usage.output_tokens == 6


@pytest.mark.parametrize(
    ("model", "limit"), [("simulated?deltas=9&tokens=4", None), ("simulated?deltas=9", 4)]
)
async def test_runs_out_of_tokens_and_leaves_the_item_open(model: str, limit: int | None) -> None:
    said = await call(MODEL, ask(model, user("go"), max_output_tokens=limit))
    assert said.end.finish == "length"
    assert said.end.usage.output_tokens == len(said.pieces) == 4
    assert said.items[0][1].endswith("...")


async def test_an_answer_of_just_the_limit_is_whole() -> None:
    said = await call(MODEL, ask("simulated?deltas=4", user("go"), max_output_tokens=4))
    assert said.end.finish == "stop"


async def test_fails_at_once_or_after_some_deltas() -> None:
    at_once = await call(MODEL, ask("simulated?fail=rate_limit_exceeded", user("go")))
    assert at_once.events == []
    assert at_once.error is not None
    assert (at_once.error.code, at_once.error.retryable) == ("rate_limit_exceeded", True)
    later = await call(MODEL, ask("simulated?fail=invalid_prompt&fail_after=3", user("go")))
    assert len(later.pieces) == 3
    assert later.error is not None
    assert (later.error.code, later.error.retryable) == ("invalid_prompt", False)


async def test_stalls_until_the_idle_timeout() -> None:
    said = await call(MODEL, ask("simulated?stall_after=2&idle_ms=5", user("go")))
    assert len(said.pieces) == 2
    assert said.error is not None
    assert said.error.code == "upstream_timeout"


async def test_refuses() -> None:
    said = await call(MODEL, ask("simulated?refuse=1", user("go")))
    assert said.items == [("message", "refuses: This refusal is simulated: I cannot answer that.")]


async def test_paced_every_delta_comes_alone_and_flat_out_many_at_once() -> None:
    paced = await call(MODEL, ask("simulated?deltas=5&interval_ms=1", user("go")))
    assert max(sum(isinstance(event, TextDelta) for event in batch) for batch in paced.batches) == 1
    flat = await call(MODEL, ask("simulated?deltas=1000", user("go")))
    assert len(flat.pieces) == 1000
    assert len(flat.batches) < 30


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("colour=red", "'colour'"),
        ("deltas=many", "'deltas'"),
        ("deltas=-1", "'deltas'"),
        ("deltas=", "'deltas'"),
        ("deltas=1&deltas=2", "'deltas'"),
        ("fail=often", "'fail'"),
        ("fail_after=1", "'fail_after'"),
        ("vary=yes", "'vary'"),
    ],
)
async def test_a_parameter_that_cannot_be_read_is_named(query: str, names: str) -> None:
    said = await call(MODEL, ask(f"simulated?{query}", user("go")))
    assert said.error is not None
    assert said.error.code == "upstream_not_found"
    assert names in said.error.message


def test_every_parameter_is_documented_by_its_reader() -> None:
    for name in READERS:
        value = "server_error" if name == "fail" else "1"
        needed = "&fail=server_error" if name == "fail_after" else ""
        assert parse(f"simulated?{name}={value}{needed}") is not None
