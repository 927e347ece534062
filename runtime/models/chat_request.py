"""A `ModelRequest` as the body of a Chat Completions call.  Pure; only fields that were given are sent.

Chat Completions want the outputs of calls right behind the calls, in tool messages of text; Responses pair
them by `call_id` wherever they stand, and let them hold images.  Both are put in order here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runtime.catalog import ChatOptions, Continues, Upstream
from runtime.model import JSON, ModelError, ModelRequest

Item = Mapping[str, JSON]
Message = dict[str, JSON]

CONTINUE: Mapping[Continues, Mapping[str, JSON]] = {
    # None of them repeats the half in its answer, unless `echo` says so.
    "vllm": {"continue_final_message": True, "add_generation_prompt": False, "echo": False},
    "sglang": {"continue_final_message": True},
    # It continues every message of the assistant that comes last.
    "tgi": {},
    "llama.cpp": {"continue_final_message": True, "add_generation_prompt": False},
}
"""How each server is told to continue the last message rather than to answer it."""


def chat_body(request: ModelRequest, upstream: Upstream) -> dict[str, JSON]:
    """The body of the call.  Raises `ModelError` (`invalid_prompt`) for what Chat Completions cannot say."""
    options = upstream.chat
    body: dict[str, JSON] = {
        "model": request.model,
        "messages": _messages(request, options),
        "stream": True,
        **_sampling(request, options),
        **_tools(request),
        **_form(request.text),
    }
    if options.stream_usage:
        body["stream_options"] = {"include_usage": True}
    if request.goes_on:
        body |= CONTINUE[options.continues or "vllm"]
    return {**body, **upstream.extra}


def _sampling(request: ModelRequest, options: ChatOptions) -> dict[str, JSON]:
    given = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        options.max_tokens_field: request.max_output_tokens,
        "reasoning_effort": (request.reasoning or {}).get("effort"),
        "user": request.user,
        "logprobs": None if request.top_logprobs is None else True,
        "top_logprobs": request.top_logprobs,
    }
    return {name: value for name, value in given.items() if value is not None}


def _form(text: Mapping[str, JSON]) -> dict[str, JSON]:
    """`response_format` and `verbosity`."""
    form: Mapping[str, JSON] = text.get("format") or {}
    fields: dict[str, JSON] = {}
    if form.get("type") == "json_schema":
        known = {name: form.get(name) for name in ("name", "description", "schema", "strict")}
        schema = {name: value for name, value in known.items() if value is not None}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form.get("type") == "json_object":
        fields["response_format"] = {"type": "json_object"}
    if text.get("verbosity"):
        fields["verbosity"] = text["verbosity"]
    return fields


def _tools(request: ModelRequest) -> dict[str, JSON]:
    """`tools`, `tool_choice`, `parallel_tool_calls`.

    Allowed tools are enforced by offering only those: few servers know the choice itself.
    """
    tools = request.tools
    choice: JSON = request.tool_choice
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        allowed = {tool.get("name") for tool in choice.get("tools") or ()}
        tools = [tool for tool in tools if tool.get("name") in allowed]
        choice = choice.get("mode") or "auto"
    if not tools:
        return {}
    fields: dict[str, JSON] = {"tools": [_tool(tool) for tool in tools]}
    if isinstance(choice, Mapping):
        if choice.get("type") != "function":
            raise _cannot(f"`tool_choice` of the type {choice.get('type')!r}")
        fields["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif choice not in (None, "auto"):
        fields["tool_choice"] = choice
    if not request.parallel_tool_calls:
        fields["parallel_tool_calls"] = False
    return fields


def _tool(tool: Item) -> dict[str, JSON]:
    if tool.get("type") != "function":
        raise _cannot(f"a tool of the type {tool.get('type')!r}")
    known = {name: tool.get(name) for name in ("name", "description", "parameters", "strict")}
    return {
        "type": "function",
        "function": {name: value for name, value in known.items() if value is not None},
    }


def _messages(request: ModelRequest, options: ChatOptions) -> list[Message]:
    messages: list[Message] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    outputs: dict[str, list[Item]] = {}
    for item in request.items:
        if item.get("type") == "function_call_output":
            outputs.setdefault(str(item.get("call_id")), []).append(item)
    for turn in _turns(request.items):
        if isinstance(turn, list):
            messages += _assistant(turn, outputs, options)
        elif turn.get("type") == "function_call_output":
            # Its call stood before it and took it along, unless there is none: the upstream shall judge.
            if str(turn.get("call_id")) in outputs:
                messages += _outputs(outputs.pop(str(turn.get("call_id"))))
        else:
            messages.append(_message(turn, options))
    return messages


def _turns(items: Sequence[Item]) -> Iterator[Item | list[Item]]:
    """The items; what the assistant said in one go (reasoning, at most one text, calls) as a list."""
    turn: list[Item] = []
    for item in items:
        kind = item.get("type") or "message"
        said = kind in ("reasoning", "function_call") or (
            kind == "message" and item.get("role") == "assistant"
        )
        begins_anew = kind == "message" and any(one.get("type") != "reasoning" for one in turn)
        if turn and (not said or begins_anew):
            yield turn
            turn = []
        if said:
            turn.append(item)
        else:
            yield item
    if turn:
        yield turn


def _assistant(turn: list[Item], outputs: dict[str, list[Item]], options: ChatOptions) -> Iterator[Message]:
    """One message with its calls, and the calls' outputs behind it."""
    message: Message = {"role": "assistant"}
    calls = [item for item in turn if item.get("type") == "function_call"]
    for item in turn:
        if item.get("type") == "reasoning" and options.reasoning_field:
            if text := _texts(item.get("content")):
                message[options.reasoning_field] = message.get(options.reasoning_field, "") + text
        elif (item.get("type") or "message") == "message":
            message |= _said(item)
    if calls:
        message.setdefault("content", None)
        message["tool_calls"] = [_call(call) for call in calls]
    if len(message) > 1:
        yield message
    yield from _outputs([item for call in calls for item in outputs.pop(str(call.get("call_id")), [])])


def _said(item: Item) -> Message:
    """The text and the refusal of an assistant's message."""
    content = item.get("content")
    refusals = (
        [part["refusal"] for part in content if part.get("refusal")] if isinstance(content, list) else []
    )
    text = _texts(content)
    if refusals:
        return {"content": text or None, "refusal": "".join(refusals)}
    return {"content": text}


def _call(item: Item) -> dict[str, JSON]:
    function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
    return {"id": item.get("call_id"), "type": "function", "function": function}


def _outputs(items: Sequence[Item]) -> Iterator[Message]:
    """Tool messages; what they cannot hold follows in a message of the user."""
    beyond: list[JSON] = []
    for item in items:
        output = item.get("output")
        text = output if isinstance(output, str) else _texts(output)
        parts = [] if isinstance(output, str) else [part for part in output or () if "text" not in part]
        if parts:
            text = text or "The output is in the next message."
            beyond.append({"type": "text", "text": f"Output of the call {item.get('call_id')}:"})
            beyond += [_part(part) for part in parts]
        yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": text}
    if beyond:
        yield {"role": "user", "content": beyond}


def _message(item: Item, options: ChatOptions) -> Message:
    if (kind := item.get("type") or "message") != "message":
        raise _cannot(f"an input item of the type {kind!r}")
    role = str(item.get("role"))
    role = "system" if role == "developer" and not options.developer_role else role
    content = item.get("content")
    if isinstance(content, str):
        return {"role": role, "content": content}
    parts = [_part(part) for part in content or ()]
    # A list only where it must be: not every server takes one.
    if len(parts) == 1 and parts[0]["type"] == "text":
        return {"role": role, "content": parts[0]["text"]}
    return {"role": role, "content": parts}


def _part(part: Item) -> dict[str, Any]:
    match part.get("type"):
        case "input_text" | "output_text" | "text" | "summary_text":
            return {"type": "text", "text": part.get("text", "")}
        case "input_image":
            return _image(part)
        case "input_file":
            return _file(part)
        case "input_audio":
            return {"type": "input_audio", "input_audio": part.get("input_audio")}
        case kind:
            raise _cannot(f"a content part of the type {kind!r}")


def _image(part: Item) -> dict[str, JSON]:
    if not part.get("image_url"):
        raise _cannot("an image by `file_id`; give its `image_url`, which may be a data URL")
    image: dict[str, JSON] = {"url": part["image_url"]}
    if part.get("detail"):
        # Chat Completions know no better than `high`.
        image["detail"] = "high" if part["detail"] == "original" else part["detail"]
    return {"type": "image_url", "image_url": image}


def _file(part: Item) -> dict[str, JSON]:
    file = {name: part[name] for name in ("file_data", "file_id", "filename") if part.get(name)}
    if "file_data" not in file and "file_id" not in file:
        raise _cannot("a file by `file_url`; give its `file_data`")
    return {"type": "file", "file": file}


def _texts(content: JSON) -> str:
    """The text of a content, its parts joined."""
    if isinstance(content, str):
        return content
    return "".join(str(part["text"]) for part in content or () if isinstance(part.get("text"), str))


def _cannot(what: str) -> ModelError:
    return ModelError(
        "invalid_prompt", f"This model is reached over Chat Completions, which cannot hold {what}."
    )
