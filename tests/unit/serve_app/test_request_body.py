"""What may be asked, in which form it is understood, and what is refused how."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from runtime.catalog import AgentConfig, Catalog, ModelConfig, Upstream
from runtime.response.request import ResponseRequest
from serve_app.errors import ApiError, Problem
from serve_app.limits import Limits
from serve_app.request_body import read_create

TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}
LIMITS = Limits(item=1000, metadata=100, items=10, max_output_tokens=8000)
CATALOG = Catalog(
    models={"m": ModelConfig("m", Upstream("u", "openai_chat", "http://127.0.0.1:1/v1"))},
    agents={
        "agent": AgentConfig("agent", "m", tools=(TOOL,)),
        "runs-its-own": AgentConfig("runs-its-own", "m", tools=({**TOOL, "python": "m:look"},)),
    },
)


def read(**body: Any) -> ResponseRequest:
    body = {"model": "simulated", **body}
    return read_create(body, CATALOG, LIMITS, len(orjson.dumps(body))).request


def refused(**body: Any) -> Problem:
    with pytest.raises(ApiError) as error:
        read(**body)
    return error.value.problem


def message(role: str, *content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message", "status": "completed", "role": role, "content": list(content)}


def text(words: str) -> dict[str, Any]:
    return {"type": "input_text", "text": words}


def said(words: str) -> dict[str, Any]:
    return {"type": "output_text", "text": words, "annotations": []}


# -- Bounds and types: 422 ---------------------------------------------------------------------------------

BOUNDS: list[tuple[str, list[Any], list[Any]]] = [
    # Field, what is taken, what is not.
    ("model", ["simulated"], [None, "", 1, [], {}]),
    ("input", ["", "hi", [], None], [1, True, 1.5]),
    ("instructions", ["", "be kind", None], [1, [], {}]),
    ("max_output_tokens", [1, 10.0, 8000, None], [0, -1, 8001, 1.5, 1e300, "5", True, [], 2**63]),
    ("max_tool_calls", [1, 2.0, None], [0, "1", 1.5, 1e300]),
    ("temperature", [0, 0.5, 2, 2.0, None], [2.01, -0.1, "1", True, []]),
    ("top_p", [0, 1, 0.5, None], [1.01, -1, "1"]),
    ("top_logprobs", [0, 20, None], [-1, 21, "1"]),
    ("presence_penalty", [-2, 0.5, None], ["1", []]),
    ("frequency_penalty", [-2, 0.5, None], ["1", []]),
    ("background", [True, False, None], ["true", 1, []]),
    ("stream", [True, False, None], ["true", 1, []]),
    ("store", [True, False, None], ["true", 0]),
    ("parallel_tool_calls", [True, False, None], ["no", 1]),
    ("include", [[], ["reasoning.encrypted_content", "anything"], None], ["x", [1], {}]),
    ("metadata", [{}, {"a": 1, "b": {"c": [None]}}, None], ["x", [], 1, {"a": "x" * 100}]),
    ("tools", [[], [TOOL], None], ["x", {}, [1], [None]]),
    ("tool_choice", ["auto", "none", None], [1, [], "maybe", {}]),
    ("text", [{}, {"format": {"type": "text"}, "verbosity": "low"}, None], ["x", [], {"verbosity": "loud"}]),
    ("reasoning", [{}, {"effort": "xhigh"}, {"effort": "max"}, None], ["low", {"effort": "much"}, []]),
    ("reasoning_effort", ["none", "minimal", None], ["much", 1]),
    ("truncation", ["auto", "disabled", None], ["some", 1]),
    ("service_tier", ["x", "x" * 64, None], ["", "x" * 65, 1]),
    ("user", ["x", "x" * 200, None], ["", "x" * 201, 1]),
    ("safety_identifier", ["x" * 128, None], ["x" * 129, 1]),
    ("prompt_cache_key", ["x", None], [1]),
    ("previous_response_id", ["resp_1", None], [1, []]),
    ("stream_options", [{"include_obfuscation": True}, {}, None], ["x", {"include_obfuscation": 1}]),
]


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, good, _ in BOUNDS for value in good])
def test_what_the_api_page_allows_is_taken(field: str, value: Any) -> None:
    read(**{field: value})


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, _, bad in BOUNDS for value in bad])
def test_a_wrong_type_or_a_crossed_bound_is_a_422_that_names_the_field(field: str, value: Any) -> None:
    problem = refused(**{field: value})
    assert problem.status == 422
    assert problem.type == "invalid_request_error"
    assert problem.param is not None
    assert problem.param.split("[")[0].split(".")[0] == field
    body = orjson.loads(problem.body())
    assert body["error"]["code"]
    assert all(one["loc"][:2] == ["body", field] and one["msg"] and one["type"] for one in body["detail"])
    assert all(set(one) == {"loc", "msg", "type"} for one in body["detail"]), "no echo of what was sent"


def test_a_missing_model_is_a_422() -> None:
    with pytest.raises(ApiError) as error:
        read_create({"input": "hi"}, CATALOG, LIMITS, 10)
    assert error.value.problem.code == "missing_required_parameter"


def test_a_secret_in_a_wrong_field_is_not_echoed() -> None:
    for body in (
        {"tools": "sk-secret"},
        {"temperature": "sk-secret"},
        {"input": [{"role": "sk-secret"}]},
        {"text": {"format": {"type": "sk-secret"}}},
    ):
        assert b"sk-secret" not in refused(**body).body()


def test_a_wrong_field_goes_by_the_name_that_its_client_knows() -> None:
    assert refused(input=1).param == "input"
    assert refused(conversation={}).param == "conversation"
    schema = {"type": "json_schema", "name": "no name", "schema": {}}
    assert refused(text={"format": schema}).param == "text.format.name"


def test_the_ceiling_of_max_output_tokens_is_a_setting() -> None:
    limits = Limits(max_output_tokens=10)
    with pytest.raises(ApiError, match="less than or equal to 10"):
        read_create({"model": "simulated", "max_output_tokens": 11}, CATALOG, limits, 10)


def test_two_contradicting_efforts_are_a_422_and_an_alias_alone_is_an_effort() -> None:
    assert refused(reasoning={"effort": "low"}, reasoning_effort="high").status == 422
    assert read(reasoning_effort="high").reasoning == {"effort": "high", "summary": None}
    assert read(reasoning={"effort": "low"}, reasoning_effort="low").reasoning == {
        "effort": "low",
        "summary": None,
    }
    assert read(reasoning={"generate_summary": "auto"}).reasoning == {"effort": None, "summary": "auto"}


@pytest.mark.parametrize("summary", ["none", "", 1, {"any": ["thing"]}])
def test_a_summary_that_no_model_knows_is_none(summary: Any) -> None:
    reasoning = read(reasoning={"effort": "low", "summary": summary}).reasoning
    assert reasoning == {"effort": "low", "summary": None}


# -- What makes no sense or is not served: 400 -------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"moderation": {"model": "x"}}, "moderation"),
        ({"tools": [{"type": "functon"}]}, "tools[0].type"),
        (
            {"tools": [TOOL, {"type": "shell", "environment": {"type": "container_auto"}}]},
            "tools[1].environment.type",
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"input": [{"type": "mcp_approval_response", "approve": True}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}]},
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]},
            "input[0].content[0].file_id",
        ),
    ],
)
def test_what_is_not_served_yet_is_a_400_that_says_so(body: dict[str, Any], param: str) -> None:
    problem = refused(**body)
    assert (problem.status, problem.code, problem.param) == (400, "unsupported_parameter", param)
    assert "not supported yet" in problem.message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"conversation": "c", "previous_response_id": "resp_1"}, "conversation"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "other"}, "tools": [TOOL]}, "tool_choice.name"),
        (
            {
                "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "other"}]},
                "tools": [TOOL],
            },
            "tool_choice.tools[0].name",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "file:///x"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
    ],
)
def test_what_makes_no_sense_is_a_400(body: dict[str, Any], param: str) -> None:
    problem = refused(**body)
    assert (problem.status, problem.param) == (400, param)


def test_fields_that_nobody_knows_and_hints_are_ignored() -> None:
    plain = read(input="hi")
    hints = {"client_metadata": {"x": 1}, "prompt_cache_retention": "24h", "generate": True, "foo": [1]}
    assert read(input="hi", conversation=None, prompt=None, **hints) == plain


# -- Items -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("hi", (message("user", text("hi")),)),
        ("", (message("user", text("")),)),
        (None, (message("user", text("")),)),
        ([], ()),
        ([{"role": "user", "content": "hi"}], (message("user", text("hi")),)),
        ({"role": "user", "content": "hi"}, (message("user", text("hi")),)),
        ([{"role": "system", "content": [{"type": "text", "text": "a"}]}], (message("system", text("a")),)),
        ([{"role": "assistant", "content": "yes"}], (message("assistant", said("yes")),)),
        # As pydantic-ai, the AI SDK and LangChain send earlier answers back.
        (
            [{"role": "assistant", "content": [{"type": "output_text", "text": "yes"}], "foo": 1}],
            (message("assistant", said("yes")),),
        ),
        ([{"role": "assistant", "content": [text("yes")]}], (message("assistant", said("yes")),)),
        ([{"role": "user", "content": [said("yes")]}], (message("user", text("yes")),)),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "https://x/y.png"}]}],
            (message("user", {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"}),),
        ),
        (
            [{"role": "user", "content": [{"type": "input_file", "filename": "a", "file_data": "QQ=="}]}],
            (message("user", {"type": "input_file", "filename": "a", "file_data": "QQ=="}),),
        ),
        (
            [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "odd"}],
            (
                {
                    "type": "function_call",
                    "status": "completed",
                    "call_id": "c",
                    "name": "f",
                    "arguments": "{}",
                },
            ),
        ),
        (
            [
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_text", "text": "1"}],
                }
            ],
            (
                {
                    "type": "function_call_output",
                    "status": "completed",
                    "call_id": "c",
                    "output": [text("1")],
                },
            ),
        ),
        (
            [{"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": "e"}],
            (
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "status": "completed",
                    "summary": [],
                    "encrypted_content": "e",
                },
            ),
        ),
        (
            [{"type": "reasoning", "id": "rs_1", "encrypted_content": "e"}],
            (
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "status": "completed",
                    "summary": [],
                    "encrypted_content": "e",
                },
            ),
        ),
        (
            [{"type": "acme:found", "id": "x"}, {"role": "user", "content": "hi"}],
            (message("user", text("hi")),),
        ),
        ([{"id": "msg_1"}], ({"type": "item_reference", "id": "msg_1"},)),
    ],
)
def test_what_clients_really_send_is_understood(given: Any, understood: Any) -> None:
    assert read(input=given).input == understood


def test_an_echoed_message_keeps_its_id_status_and_phase() -> None:
    echoed = {
        "id": "msg_1",
        "type": "message",
        "status": "incomplete",
        "role": "assistant",
        "phase": "commentary",
        "content": [{"type": "refusal", "refusal": "no"}],
    }
    assert read(input=[echoed]).input == (echoed,)


def test_without_input_a_conversation_goes_on_from_where_it_stands() -> None:
    assert read(previous_response_id="resp_1").input == ()


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (1, "input[0]"),
        ({}, "input[0].type"),
        ({"type": 7}, "input[0].type"),
        ({"role": "robot", "content": "x"}, "input[0].role"),
        ({"role": ["user"], "content": "x"}, "input[0].role"),
        ({"role": "tool", "content": "x"}, "input[0].role"),
        ({"role": "user"}, "input[0].content"),
        ({"role": "user", "content": 5}, "input[0].content"),
        ({"role": "user", "content": [5]}, "input[0].content[0]"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text"),
        ({"role": "user", "content": [{"text": "x"}]}, "input[0].content[0].type"),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": {"url": "x"}}]},
            "input[0].content[0].image_url",
        ),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "input[0].call_id"),
        ({"type": "function_call", "name": "f", "arguments": {}, "call_id": "c"}, "input[0].arguments"),
        ({"type": "function_call_output", "output": "x"}, "input[0].call_id"),
        ({"type": "function_call_output", "call_id": "c", "output": {"a": 1}}, "input[0].output"),
        ({"type": "function_call_output", "call_id": "x" * 257, "output": ""}, "input[0].call_id"),
        ({"type": "reasoning", "summary": "x"}, "input[0].summary"),
        ({"type": "reasoning", "summary": ["x"]}, "input[0].summary[0]"),
    ],
)
def test_an_item_that_is_not_well_formed_is_a_422_at_its_place(item: Any, param: str) -> None:
    problem = refused(input=[item])
    assert (problem.status, problem.param) == (422, param)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("temperature", 2.5, "decimal_above_max_value"),
        ("temperature", 3, "decimal_above_max_value"),
        ("top_p", -1, "decimal_below_min_value"),
        ("max_output_tokens", 0, "integer_below_min_value"),
        ("max_output_tokens", 8001.0, "integer_above_max_value"),
        ("top_logprobs", 21, "integer_above_max_value"),
        ("top_logprobs", 1.5, "invalid_type"),
    ],
)
def test_a_number_out_of_bounds_has_the_code_of_its_kind(field: str, value: float, code: str) -> None:
    problem = refused(**{field: value})
    assert (problem.status, problem.param, problem.code) == (422, field, code)


def test_whole_numbers_are_kept_as_such() -> None:
    assert repr(read(max_output_tokens=10.0).max_output_tokens) == "10"


def test_an_item_that_is_too_long_is_a_413_and_too_many_are_a_422() -> None:
    assert read(input="x" * 800)
    assert refused(input="x" * 1001).status == 413
    long_item = {"role": "user", "content": "x" * 1001}
    problem = refused(input=[{"role": "user", "content": "x"}, long_item])
    assert (problem.status, problem.param) == (413, "input[1]")
    assert refused(input=[{"role": "user", "content": "x"}] * 11).status == 422


# -- Tools and text ----------------------------------------------------------------------------------------


def test_a_tool_is_kept_with_all_its_keys_and_nothing_else() -> None:
    (tool,) = read(tools=[{"type": "function", "name": "f", "defer_loading": True}]).tools
    assert tool == {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}


@pytest.mark.parametrize(
    "tool",
    [
        {"name": "f"},
        {"type": "function"},
        {"type": "function", "name": "a b"},
        {"type": "function", "name": "x" * 65},
        {"type": "function", "name": "f", "parameters": "x"},
        {"type": "function", "name": "f", "strict": "yes"},
        {"type": "function", "function": {"name": "f"}},
    ],
)
def test_a_tool_that_is_not_well_formed_is_a_422(tool: dict[str, Any]) -> None:
    assert refused(tools=[tool]).status == 422


@pytest.mark.parametrize(
    ("choice", "understood"),
    [
        (None, "auto"),
        ("required", "required"),
        ({"type": "function", "name": "look"}, {"type": "function", "name": "look"}),
        (
            {
                "type": "allowed_tools",
                "tools": [{"type": "function", "name": "look"}] * 2,
                "mode": "required",
            },
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look"}]},
        ),
    ],
)
def test_tool_choices_are_understood(choice: Any, understood: Any) -> None:
    assert read(tools=[TOOL], tool_choice=choice).tool_choice == understood


def test_the_tools_of_an_agent_can_be_chosen() -> None:
    assert read(model="agent", tool_choice="required").tool_choice == "required"
    choice = {"type": "function", "name": "look"}
    assert read(model="agent", tool_choice=choice).tool_choice == choice


def test_a_request_cannot_name_a_tool_as_one_that_the_agent_runs_itself() -> None:
    look = {"type": "function", "name": "look"}
    problem = refused(model="runs-its-own", tools=[look])
    assert (problem.status, problem.param) == (400, "tools[0].name")
    assert read(model="agent", tools=[look]).tools[0]["name"] == "look", "the client runs it either way"
    hosted = [{"type": "web_search_call", "id": "ws_1"}, {"type": "web_search"}]
    item = {"type": "additional_tools", "role": "developer", "tools": [hosted[1], look]}
    problem = refused(model="runs-its-own", input=[hosted[0], item])
    assert (problem.status, problem.param) == (400, "input[1].tools[1].name"), "where it was sent"


def test_a_json_schema_format_has_all_its_keys() -> None:
    schema = {"type": "object"}
    asked = {"format": {"type": "json_schema", "name": "x", "schema": schema}, "verbosity": "high"}
    assert read(text=asked).text == {
        "format": {
            "type": "json_schema",
            "name": "x",
            "description": None,
            "schema": schema,
            "strict": False,
        },
        "verbosity": "high",
    }


@pytest.mark.parametrize(
    "format_",
    [
        {"type": "xml"},
        {},
        {"type": "json_schema", "name": "x"},
        {"type": "json_schema", "name": "a b", "schema": {}},
    ],
)
def test_a_format_that_is_not_well_formed_is_a_422(format_: dict[str, Any]) -> None:
    assert refused(text={"format": format_}).status == 422
