"""Tools that run on the client: asked for in functions, shown as the items that the client expects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from runtime.catalog import SIMULATED_UPSTREAM, Catalog, ModelConfig
from runtime.model import (
    ArgumentsDelta,
    CallEnded,
    ItemClosed,
    ItemOpened,
    ModelError,
    ModelEvent,
    TextDelta,
    Usage,
)
from tests.unit.actors.kit import Script, ScriptedModel, in_turn, says
from tests.unit.serve_app.served import Served, at_once, events_of, served

CATALOG = Catalog(models={"scripted": ModelConfig("scripted", SIMULATED_UPSTREAM)})
CUSTOM = {"type": "custom", "name": "sql", "description": "Run SQL."}
FUNCTION = {"type": "function", "name": "look_up", "parameters": {"type": "object"}}


def calls(*functions: tuple[str, str]) -> list[Sequence[ModelEvent]]:
    """Calls of these functions with these arguments, in pieces."""
    events: list[ModelEvent] = []
    for name, arguments in functions:
        half = len(arguments) // 2
        events += [ItemOpened("function_call", name, f"call_{name}")]
        events += [ArgumentsDelta(arguments[:half]), ArgumentsDelta(arguments[half:]), ItemClosed()]
    return [[event] for event in [*events, CallEnded("tool_calls", Usage(3, 2))]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[tuple[Served, ScriptedModel]]:
    model = ScriptedModel(script)
    async with served(CATALOG, {"scripted": model}) as server:
        server.cluster.factory.sleep = at_once
        yield server, model


async def streamed(server: Served, **body: Any) -> list[dict[str, Any]]:
    """The events of a streamed response."""
    answer = await server.create(model="scripted", input="Go.", stream=True, **body)
    assert answer.status_code == 200, answer.text
    return events_of(answer.content)


CLIENT_TOOLS: list[tuple[dict[str, Any], str, str, dict[str, Any], dict[str, Any], str]] = [
    (
        CUSTOM,
        "sql",
        '{"input": "select \\"é\\""}',
        {"type": "custom_tool_call", "name": "sql", "input": 'select "é"'},
        {"type": "custom_tool_call_output", "output": "é"},
        "é",
    ),
    (
        {"type": "shell"},
        "shell",
        '{"commands": ["ls", "pwd"], "timeout_ms": 5}',
        {
            "type": "shell_call",
            "action": {"commands": ["ls", "pwd"], "timeout_ms": 5, "max_output_length": None},
        },
        {
            "type": "shell_call_output",
            "output": [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}],
        },
        '[{"stdout":"a","stderr":"","outcome":{"type":"exit","exit_code":0}}]',
    ),
    (
        {"type": "local_shell"},
        "local_shell",
        '{"command": ["ls", "-l"]}',
        {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls", "-l"], "env": {}}},
        {"type": "local_shell_call_output", "output": "a"},
        "a",
    ),
    (
        {"type": "apply_patch"},
        "apply_patch",
        '{"type": "create_file", "path": "a", "diff": "+x"}',
        {"type": "apply_patch_call", "operation": {"type": "create_file", "path": "a", "diff": "+x"}},
        {"type": "apply_patch_call_output", "status": "completed", "output": "done"},
        "completed: done",
    ),
    (
        {"type": "namespace", "name": "crm", "description": "Customers.", "tools": [FUNCTION]},
        "look_up",
        '{"id": 1}',
        {"type": "function_call", "name": "look_up", "namespace": "crm", "arguments": '{"id": 1}'},
        {"type": "function_call_output", "output": "Ada"},
        "Ada",
    ),
]


@pytest.mark.parametrize(("tool", "name", "arguments", "shown", "output", "told"), CLIENT_TOOLS)
@pytest.mark.parametrize("stored", [True, False])
async def test_a_tool_makes_the_whole_round_trip(
    tool: dict[str, Any],
    name: str,
    arguments: str,
    shown: dict[str, Any],
    output: dict[str, Any],
    told: str,
    stored: bool,
) -> None:
    """With `previous_response_id`, and with everything sent again by a client that stores nothing here."""
    once = in_turn(calls((name, arguments)), says("Done."), says("And more."))
    async with scripted(once) as (server, model):
        events = await streamed(server, tools=[tool], store=stored)
        offered = model.requests[0].tools[0]
        assert (offered["type"], offered["name"]) == ("function", name)
        (call,) = events[-1]["response"]["output"]
        assert {key: call[key] for key in shown} == shown
        added = next(event for event in events if event["type"] == "response.output_item.added")
        assert (added["item"]["type"], added["item"]["id"]) == (call["type"], call["id"])

        answer = output | {"call_id": call["call_id"]}
        if output["type"] == "local_shell_call_output":
            answer = output | {"id": call["call_id"]}
        before: dict[str, Any] = {"previous_response_id": events[-1]["response"]["id"], "input": [answer]}
        if not stored:
            before = {"input": [{"role": "user", "content": "Go."}, call, answer], "store": False}
        second = await server.create(model="scripted", tools=[tool], **before)
        assert second.status_code == 200, second.text
        heard = [item for item in model.requests[1].items if item["type"].startswith("function_call")]
        assert [item["type"] for item in heard] == ["function_call", "function_call_output"]
        assert (heard[0]["name"], heard[1]["output"]) == (name, told)
        assert orjson.loads(heard[0]["arguments"]).items() >= orjson.loads(arguments).items()
        assert heard[0]["call_id"] == heard[1]["call_id"]
        if stored:
            third = {"previous_response_id": second.json()["id"], "input": "And?"}
            answered = await server.create(model="scripted", tools=[tool], **third)
            assert answered.status_code == 200, answered.text


async def test_a_custom_tools_input_has_events_of_its_own() -> None:
    async with scripted(in_turn(calls(("sql", '{"input": "select 1"}')))) as (server, _):
        events = await streamed(server, tools=[CUSTOM])
    (delta,) = [event for event in events if event["type"] == "response.custom_tool_call_input.delta"]
    (done,) = [event for event in events if event["type"] == "response.custom_tool_call_input.done"]
    assert delta["delta"] == done["input"] == "select 1"
    assert not [event for event in events if "function_call" in event["type"]]


async def test_a_shells_commands_have_events_of_their_own() -> None:
    async with scripted(in_turn(calls(("shell", '{"commands": ["ls", "pwd"]}')))) as (server, _):
        events = await streamed(server, tools=[{"type": "shell"}])
    done = [event for event in events if event["type"] == "response.shell_call_command.done"]
    assert [(event["command_index"], event["command"]) for event in done] == [(0, "ls"), (1, "pwd")]


async def test_free_text_is_a_custom_tools_input_too() -> None:
    async with scripted(in_turn(calls(("sql", "select 1")))) as (server, _):
        events = await streamed(server, tools=[CUSTOM])
    assert events[-1]["response"]["output"][0]["input"] == "select 1"


async def test_a_call_that_nobody_could_obey_is_asked_for_again() -> None:
    """And what is broken of it is never shown."""
    broken, whole = calls(("shell", '{"commands": 5}')), calls(("shell", '{"commands": ["ls"]}'))
    async with scripted(in_turn(broken, whole)) as (server, model):
        events = await streamed(server, tools=[{"type": "shell"}])
    assert len(model.requests) == 2
    (call,) = events[-1]["response"]["output"]
    assert call["action"]["commands"] == ["ls"]


async def test_names_that_two_tools_share_are_told_apart() -> None:
    tools = [FUNCTION, {"type": "namespace", "name": "crm", "description": "", "tools": [FUNCTION]}]
    async with scripted(in_turn(calls(("crm__look_up", "{}")))) as (server, model):
        events = await streamed(server, tools=tools)
    assert [tool["name"] for tool in model.requests[0].tools] == ["look_up", "crm__look_up"]
    assert events[-1]["response"]["output"][0]["namespace"] == "crm"
    assert events[-1]["response"]["output"][0]["name"] == "look_up"


@pytest.mark.parametrize(
    ("choice", "offered"),
    [
        ({"type": "custom", "name": "sql"}, {"type": "function", "name": "sql"}),
        ({"type": "shell"}, {"type": "function", "name": "shell"}),
    ],
)
async def test_a_choice_of_such_a_tool_reaches_the_model(
    choice: dict[str, Any], offered: dict[str, Any]
) -> None:
    async with scripted(in_turn(says("No."))) as (server, model):
        await streamed(server, tools=[CUSTOM, {"type": "shell"}], tool_choice=choice)
    assert model.requests[0].tool_choice == offered


# -- Promises that hold whatever the upstream does ---------------------------------------------------------


OTHER = {**FUNCTION, "name": "other"}


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "look_up"}]},
        {"type": "function", "name": "look_up"},
    ],
)
async def test_a_tool_that_is_not_allowed_is_not_called(choice: dict[str, Any]) -> None:
    said = calls(("other", "{}"), ("look_up", "{}"))
    async with scripted(in_turn(said)) as (server, _):
        events = await streamed(server, tools=[FUNCTION, OTHER], tool_choice=choice)
    assert [item["name"] for item in events[-1]["response"]["output"]] == ["look_up"]
    assert b"other" not in orjson.dumps([event for event in events if "item" in event or "delta" in event])


async def test_a_model_that_wants_nothing_but_what_is_forbidden_is_asked_again_and_then_fails() -> None:
    said = calls(("other", "{}"))
    async with scripted(lambda request, number: said) as (server, model):
        events = await streamed(server, tools=[FUNCTION, OTHER], tool_choice="none")
    assert len(model.requests) == 3
    assert events[-1]["response"]["error"]["code"] == "upstream_protocol"
    assert "other" in events[-1]["response"]["error"]["message"]
    assert events[-1]["response"]["output"] == []


async def test_one_call_a_turn_where_only_one_is_wanted() -> None:
    said = calls(("look_up", "{}"), ("other", "{}"))
    async with scripted(in_turn(said)) as (server, _):
        events = await streamed(server, tools=[FUNCTION, OTHER], parallel_tool_calls=False)
    assert [item["name"] for item in events[-1]["response"]["output"]] == ["look_up"]


# -- Hosted tools ------------------------------------------------------------------------------------------


async def test_who_merely_lists_a_hosted_tool_is_served_and_warned(caplog: pytest.LogCaptureFixture) -> None:
    tools = [
        {"type": "web_search"},
        {"type": "mcp", "server_label": "x", "authorization": "s3cret"},
        FUNCTION,
    ]
    items = [
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"role": "user", "content": ""},
    ]
    async with served() as server:
        headers = {"x-request-id": "req_mine"}
        body = {"model": "simulated?tool=0", "tools": tools, "input": items}
        answer = await server.client.post("/v1/responses", json=body, headers=headers)
    assert answer.status_code == 200
    warning = answer.headers["x-rayspond-warning"]
    assert warning == "not served here, left out: web_search, mcp, web_search_call"
    assert [tool["type"] for tool in answer.json()["tools"]] == ["function"]
    assert f"request req_mine: {warning}" in caplog.text
    assert "s3cret" not in answer.text + caplog.text


async def test_no_tool_writes_headers_or_log_lines_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    tools = [{"type": "vendor:\r\nset-cookie: a=b"}, *({"type": f"vendor:{number}"} for number in range(500))]
    async with served() as server:
        answer = await server.create(input="Hello", tools=tools)
    assert answer.status_code == 200
    warning = answer.headers["x-rayspond-warning"]
    assert warning.startswith("not served here, left out: vendor:??set-cookie: a=b, vendor:0, ")
    assert len(warning) < 1100
    assert "\nset-cookie" not in caplog.text


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "web_search"},
        {"type": "mcp", "server_label": "x"},
        {"type": "allowed_tools", "tools": [{"type": "web_search"}]},
        "required",
    ],
)
async def test_who_forces_a_hosted_tool_is_told(choice: Any) -> None:
    async with served() as server:
        answer = await server.create(tools=[{"type": "web_search"}], tool_choice=choice)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("tool_choice")


async def test_words_before_a_forbidden_call_stay() -> None:
    said: list[ModelEvent] = [ItemOpened("message"), TextDelta("Hm."), ItemClosed()]
    said += [ItemOpened("function_call", "other", "c"), ArgumentsDelta("{}"), ItemClosed()]
    async with scripted(in_turn([[*said, CallEnded("tool_calls", Usage(1, 1))]])) as (server, _):
        events = await streamed(server, tools=[FUNCTION, OTHER], tool_choice="none")
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["message"]
    assert events[-1]["response"]["status"] == "completed"


async def test_half_a_call_of_the_clients_is_not_shown() -> None:
    """The upstream breaks off within it: its arguments are no use to anybody."""
    half: list[Any] = [
        [ItemOpened("function_call", "shell", "c"), ArgumentsDelta('{"comm')],
        ModelError("upstream_interrupted", "Gone.", retryable=True),
    ]
    async with scripted(in_turn(half, calls(("shell", '{"commands": ["ls"]}')))) as (server, _):
        events = await streamed(server, tools=[{"type": "shell"}])
    assert [item["status"] for item in events[-1]["response"]["output"]] == ["completed"]


def additional(*tools: dict[str, Any]) -> dict[str, Any]:
    """Tools that an input item offers, as Codex sends them."""
    return {"type": "additional_tools", "id": "at_01a2", "role": "developer", "tools": list(tools)}


async def test_tools_that_an_item_offers_are_offered_as_long_as_it_is_told() -> None:
    """To this response and to what continues it; the request's own list stays as it was."""
    inner = {"type": "custom", "name": "exec", "description": "Run code.", "format": {"type": "text"}}
    namespace = {"type": "namespace", "name": "functions", "description": "", "tools": [inner, FUNCTION]}
    once = in_turn(calls(("exec", '{"input": "1"}')), says("Done."), says("In short."), says("In short."))
    async with scripted(once) as (server, model):
        question = {"role": "user", "content": "Go."}
        asked = [additional(namespace), question]
        answer = await server.create(model="scripted", tools=[CUSTOM], input=asked)
        first = answer.json()
        (call,) = first["output"]
        assert (call["type"], call["namespace"], call["name"]) == ("custom_tool_call", "functions", "exec")
        assert [tool["type"] for tool in first["tools"]] == ["custom"]
        listed = (await server.client.get(f"/v1/responses/{first['id']}/input_items")).json()["data"]
        assert [item["type"] for item in listed] == ["message", "additional_tools"]
        assert listed[1]["tools"][0]["tools"][0] == inner

        output = {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": "2"}
        await server.create(model="scripted", previous_response_id=first["id"], input=[output])
        short = {"model": "scripted", "input": [additional(FUNCTION), question]}
        assert (await server.client.post("/v1/responses/compact", json=short)).status_code == 200
        await server.create(model="scripted", input=[*asked, {"type": "compaction_trigger"}])
    offered = [[tool["name"] for tool in request.tools] for request in model.requests]
    assert offered == [["exec", "look_up", "sql"], ["exec", "look_up"], ["look_up"], []]
    assert {item["type"] for request in model.requests for item in request.items} == {
        "message",
        "function_call",
        "function_call_output",
    }
    counted = [{"input": "Go."}, {"input": [additional(FUNCTION), question]}]
    async with served() as server:
        few, more = [
            (await server.client.post("/v1/responses/input_tokens", json=body)).json()["input_tokens"]
            for body in counted
        ]
    assert few < more


async def test_an_item_offers_what_a_request_may() -> None:
    """Hosted tools are left out by name, wrong ones refused by their place; a choice may name the rest."""
    async with served() as server:
        answer = await server.create(input=[additional({"type": "web_search"}, FUNCTION)])
        assert answer.headers["x-rayspond-warning"] == "not served here, left out: web_search"
        assert [item["type"] for item in answer.json()["output"]] == ["function_call"]
        chosen = {"type": "function", "name": "look_up"}
        answer = await server.create(input=[additional(FUNCTION)], tool_choice=chosen)
        assert answer.status_code == 200
        for wrong, param in (
            (additional({"type": "function"}), "input[0].tools[0].name"),
            (additional() | {"tools": None}, "input[0].tools"),
            (additional() | {"tools": {}}, "input[0].tools"),
            (additional() | {"tools": ["sql"]}, "input[0].tools[0]"),
        ):
            refused = await server.create(input=[wrong])
            assert (refused.status_code, refused.json()["error"]["param"]) == (422, param)
