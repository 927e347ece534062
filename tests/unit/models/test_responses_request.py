"""What an upstream that speaks Responses is sent: the whole context, of private things only its own."""

from runtime.catalog import Upstream
from runtime.models.openai_responses import responses_body
from tests.unit.models.calls import WEATHER, ask, user

UP = Upstream("up", "openai_responses", "http://up/v1", extra={"top_k": 3})


def test_only_what_was_given_is_sent_and_nothing_is_stored_there() -> None:
    assert responses_body(ask("m", user("hi")), UP) == {
        "model": "m",
        "input": [user("hi")],
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "top_k": 3,
    }


def test_every_setting_is_passed_on() -> None:
    request = ask(
        "m",
        instructions="Be brief.",
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "get_weather"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_object"}, "verbosity": "low"},
        reasoning={"effort": "low", "summary": None},
        temperature=0.0,
        top_p=1.0,
        max_output_tokens=9,
        user="u",
    )
    body = responses_body(request, UP)
    assert body["instructions"] == "Be brief."
    assert body["tools"] == [WEATHER]
    assert body["tool_choice"] == {"type": "function", "name": "get_weather"}
    assert body["parallel_tool_calls"] is False
    assert body["text"] == {"format": {"type": "json_object"}, "verbosity": "low"}
    assert body["reasoning"] == {"effort": "low"}
    assert (body["temperature"], body["top_p"], body["max_output_tokens"], body["user"]) == (0.0, 1.0, 9, "u")


def test_its_own_ids_and_encrypted_reasoning_go_back_ours_do_not() -> None:
    own = {"name": "up", "id": "rs_up", "encrypted_content": "sealed"}
    summary = [{"type": "summary_text", "text": "short"}]
    reasoning = {
        "type": "reasoning",
        "id": "rs_ours",
        "status": "completed",
        "summary": summary,
        "content": [{"type": "reasoning_text", "text": "raw"}],
        "_upstream": own,
    }
    message = {
        "type": "message",
        "id": "msg_ours",
        "role": "assistant",
        "content": "x",
        "_upstream": {"name": "up"},
    }
    assert responses_body(ask("m", reasoning, message), UP)["input"] == [
        {"type": "reasoning", "id": "rs_up", "summary": summary, "encrypted_content": "sealed"},
        {"type": "message", "role": "assistant", "content": "x"},
    ]


def test_another_upstreams_reasoning_is_left_out_and_its_ids_too() -> None:
    other = {"name": "other", "id": "x_1", "encrypted_content": "sealed"}
    reasoning = {
        "type": "reasoning",
        "id": "rs_ours",
        "summary": [],
        "encrypted_content": "e",
        "_upstream": other,
    }
    call = {"type": "function_call", "id": "fc_ours", "call_id": "c", "name": "f", "arguments": "{}"}
    assert responses_body(ask("m", reasoning, {**call, "_upstream": other}), UP)["input"] == [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    ]
