"""Responses items as chat messages, and request fields as chat fields."""

from typing import Any

import pytest

from runtime.catalog import ChatOptions, Upstream
from runtime.model import ModelError
from runtime.models.chat_request import chat_body
from tests.unit.models.calls import WEATHER, ask, user

PLAIN = Upstream("up", "openai_chat", "http://up/v1")
FUNCTION: dict[str, Any] = {
    "type": "function",
    "function": {key: WEATHER[key] for key in ("name", "parameters")},
}


def _assistant(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


def _call(call_id: str) -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "call_id": call_id, "name": "f", "arguments": "{}"}


def _output(call_id: str, output: Any = "done") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def _reasoning(text: str) -> dict[str, Any]:
    return {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}],
    }


def _tool_call(call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}


def _tool(call_id: str, content: str = "done") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def _messages(*items: dict[str, Any], chat: ChatOptions = PLAIN.chat) -> list[Any]:
    upstream = Upstream("up", "openai_chat", "http://up/v1", chat=chat)
    messages = chat_body(ask("m", *items), upstream)["messages"]
    assert isinstance(messages, list)
    return messages


def test_only_what_was_given_is_sent() -> None:
    assert chat_body(ask("m", user("hi")), PLAIN) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_every_setting_has_its_field() -> None:
    request = ask(
        "m",
        user("hi"),
        instructions="Be brief.",
        tools=[{**WEATHER, "strict": True, "description": None}],
        tool_choice="required",
        parallel_tool_calls=False,
        text={"format": {"type": "json_object"}, "verbosity": "low"},
        reasoning={"effort": "high", "summary": "auto"},
        temperature=0.0,
        top_p=0.5,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        max_output_tokens=9,
        user="u",
    )
    body = chat_body(request, Upstream("up", "openai_chat", "http://up/v1", extra={"stop": ["x"]}))
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [{"type": "function", "function": {**FUNCTION["function"], "strict": True}}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_object"},
        "verbosity": "low",
        "reasoning_effort": "high",
        "temperature": 0.0,
        "top_p": 0.5,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "max_tokens": 9,
        "user": "u",
        "stop": ["x"],
    }


def test_options_of_the_upstream() -> None:
    chat = ChatOptions(max_tokens_field="max_completion_tokens", developer_role=True, stream_usage=False)
    upstream = Upstream("up", "openai_chat", "http://up/v1", chat=chat)
    developer = {"role": "developer", "content": "d"}
    body = chat_body(ask("m", developer, max_output_tokens=5), upstream)
    assert body["max_completion_tokens"] == 5
    assert "stream_options" not in body
    assert body["messages"] == [developer]
    assert _messages(developer) == [{"role": "system", "content": "d"}]


@pytest.mark.parametrize(
    ("server", "sent"),
    [
        (None, {"continue_final_message": True, "add_generation_prompt": False, "echo": False}),
        ("vllm", {"continue_final_message": True, "add_generation_prompt": False, "echo": False}),
        ("sglang", {"continue_final_message": True}),
        ("tgi", {}),
        ("llama.cpp", {"continue_final_message": True, "add_generation_prompt": False}),
    ],
)
def test_half_a_message_comes_last_and_the_server_is_told_to_continue_it(
    server: Any, sent: dict[str, Any]
) -> None:
    half = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hel"}]}
    upstream = Upstream("u", "openai_chat", chat=ChatOptions(continues=server))
    plain = chat_body(ask("m", user("Hi"), half), upstream)
    body = chat_body(ask("m", user("Hi"), half, goes_on=True), upstream)
    assert body == plain | sent
    assert body["messages"][-1] == {"role": "assistant", "content": "Hel"}


def test_a_json_schema() -> None:
    schema = {"type": "object"}
    form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True, "description": None}
    assert chat_body(ask("m", text={"format": form}), PLAIN)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": schema, "strict": True},
    }


@pytest.mark.parametrize(
    ("choice", "sent", "names"),
    [
        ("auto", None, ["a", "b"]),
        ("none", "none", ["a", "b"]),
        ({"type": "function", "name": "b"}, {"type": "function", "function": {"name": "b"}}, ["a", "b"]),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "b"}]},
            None,
            ["b"],
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]},
            "required",
            ["b"],
        ),
    ],
)
def test_tool_choice(choice: Any, sent: Any, names: list[str]) -> None:
    tools = [{"type": "function", "name": name} for name in ("a", "b")]
    body = chat_body(ask("m", tools=tools, tool_choice=choice), PLAIN)
    assert body.get("tool_choice") == sent
    assert [tool["function"]["name"] for tool in body["tools"]] == names


def test_images_files_and_audio() -> None:
    content = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "original"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
        {"type": "input_file", "file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]
    assert _messages({"role": "user", "content": content}) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "high"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {
                    "type": "file",
                    "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
                },
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        }
    ]


def test_a_single_text_part_is_sent_as_text() -> None:
    parts = [{"type": "input_text", "text": "hi"}]
    assert _messages({"role": "user", "content": parts}) == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]},
        {"role": "user", "content": [{"type": "input_file", "file_url": "https://x"}]},
        {"role": "user", "content": [{"type": "input_video", "video_url": "https://x"}]},
        {"type": "custom_tool_call", "call_id": "c", "name": "n", "input": "i"},
    ],
)
def test_what_chat_cannot_hold_is_refused_by_name(item: Any) -> None:
    with pytest.raises(ModelError, match="cannot hold") as caught:
        _messages(item)
    assert caught.value.code == "invalid_prompt"


def test_calls_of_one_turn_share_a_message_with_its_text() -> None:
    items = [user("q"), _assistant("wait"), _call("a"), _call("b"), _output("a", "1"), _output("b", "2")]
    assert _messages(*items) == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "wait", "tool_calls": [_tool_call("a"), _tool_call("b")]},
        _tool("a", "1"),
        _tool("b", "2"),
    ]


def test_calls_one_after_the_other_are_turns_of_their_own() -> None:
    assert _messages(_call("a"), _output("a"), _call("b"), _output("b"), _assistant("so")) == [
        {"role": "assistant", "content": None, "tool_calls": [_tool_call("a")]},
        _tool("a"),
        {"role": "assistant", "content": None, "tool_calls": [_tool_call("b")]},
        _tool("b"),
        {"role": "assistant", "content": "so"},
    ]


def test_an_output_is_put_behind_its_call_wherever_it_stands() -> None:
    assert _messages(_call("a"), user("meanwhile"), _output("a")) == [
        {"role": "assistant", "content": None, "tool_calls": [_tool_call("a")]},
        _tool("a"),
        {"role": "user", "content": "meanwhile"},
    ]
    assert _messages(_output("orphan")) == [_tool("orphan")], "the upstream shall judge"


def test_an_output_with_an_image_is_followed_by_it() -> None:
    parts = [{"type": "input_text", "text": "a map"}, {"type": "input_image", "image_url": "https://x"}]
    assert _messages(_call("a"), _call("b"), _output("a", parts), _output("b")) == [
        {"role": "assistant", "content": None, "tool_calls": [_tool_call("a"), _tool_call("b")]},
        _tool("a", "a map"),
        _tool("b"),
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Output of the call a:"},
                {"type": "image_url", "image_url": {"url": "https://x"}},
            ],
        },
    ]


def test_several_assistant_messages_stay_several() -> None:
    assert _messages(_assistant("one"), _assistant("two")) == [
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": "two"},
    ]


def test_a_refusal_is_told_as_one() -> None:
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    assert _messages(refusal) == [{"role": "assistant", "content": None, "refusal": "no"}]


def test_reasoning_goes_back_only_where_the_upstream_takes_it() -> None:
    items = [_reasoning("hm"), _call("a"), _output("a")]
    assert "hm" not in str(_messages(*items))
    told = _messages(*items, chat=ChatOptions(reasoning_field="reasoning_content"))
    assert told[0]["reasoning_content"] == "hm"
    assert told[0]["tool_calls"] == [_tool_call("a")]
    assert _messages(_reasoning("hm"), user("q")) == [{"role": "user", "content": "q"}]


def test_private_keys_are_never_sent() -> None:
    item = {**_assistant("x"), "_upstream": {"name": "up", "id": "i", "encrypted_content": "sealed"}}
    assert "sealed" not in str(_messages(item))
