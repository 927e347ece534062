"""Wire events against the types of OpenAI's SDK (A) and of Open Responses (R), strictly.

All decided exceptions are in this file: where the two contradict each other or us, PROTOCOL says what we do.
"""

from __future__ import annotations

import inspect
import typing
from typing import Any

import openresponses_types.types as r
import orjson
from openai.types.conversations import ConversationItemList
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from pydantic import BaseModel

# A has the one, R the other; which of them is sent is the dialect of the request.
DIALECT = {"response.reasoning_text.delta", "response.reasoning_text.done"}
# R knows no tools but functions, and no items of others; ours have A's names.
ONLY_OPENAI = DIALECT | {
    "response.custom_tool_call_input.delta",
    "response.custom_tool_call_input.done",
    "response.shell_call_command.added",
    "response.shell_call_command.delta",
    "response.shell_call_command.done",
}
OPEN_RESPONSES_ITEMS = {"message", "function_call", "function_call_output", "reasoning", "compaction"}
ONLY_OPEN_RESPONSES = {"response.reasoning.delta", "response.reasoning.done"}


def _openai() -> dict[str, type[BaseModel]]:
    union = typing.get_args(ResponseStreamEvent)[0]
    found: dict[str, type[BaseModel]] = {}
    for cls in typing.get_args(union):
        for name in typing.get_args(cls.model_fields["type"].annotation):
            found[name] = cls
    return found


def _open_responses() -> dict[str, type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {}
    for name, cls in inspect.getmembers(r, inspect.isclass):
        if name.endswith("StreamingEvent") and issubclass(cls, BaseModel):
            kind: Any = cls.model_fields["type"].annotation  # An enum with one member.
            found |= {member.value: cls for member in kind}
    return found


# Without this the types of all events that hold a response would be built each with a response of its own.
Response.model_rebuild()
OPENAI = _openai()
OPEN_RESPONSES = _open_responses()


def check_event(data: bytes) -> BaseModel | None:
    """Raises unless the event is valid under both; returns it as the SDK sees it, where the SDK knows it."""
    event = orjson.loads(data)
    kind = event["type"]
    assert kind in OPENAI or kind in OPEN_RESPONSES, f"nobody knows {kind}"
    if kind not in ONLY_OPENAI and event.get("item", {}).get("type", "message") in OPEN_RESPONSES_ITEMS:
        strict(OPEN_RESPONSES[kind], for_open_responses(event))
    if kind in ONLY_OPEN_RESPONSES:
        return None
    return strict(OPENAI[kind], for_openai(event))


def check_response(body: bytes) -> None:
    """Raises unless the response object is valid under both."""
    strict(Response, for_openai({"response": orjson.loads(body)})["response"])
    strict(r.ResponseResource, for_open_responses({"response": orjson.loads(body)})["response"])


def check_conversation_items(body: bytes) -> None:
    """Raises unless it is a list of a conversation's items as the SDK knows them.

    A has text for the ids of the first and the last item also where there is none; we say null, as OpenAI.
    """
    listed = orjson.loads(body)
    empty = {} if listed["data"] else {"first_id": "", "last_id": ""}
    strict(ConversationItemList, {**listed, **empty})


def check_answer(path: str, body: bytes) -> None:
    """Raises unless a success is valid, where it is a response, a list of them, or of their items."""
    told = orjson.loads(body)
    match told.get("object"):
        case "response":
            check_response(body)
        case "list" if path.endswith("/input_items") and told["data"]:  # A has no empty pages.
            strict(ResponseItemList, told)
        case "list" if path == "/v1/responses":
            for response in told["data"]:
                check_response(orjson.dumps(response))
        case _:
            pass


def strict(cls: type[BaseModel], value: Any) -> BaseModel:
    return cls.model_validate_json(orjson.dumps(value), strict=True)


def for_openai(event: dict[str, Any]) -> dict[str, Any]:
    """A closes the list of error codes, where ours tell more; S lets metadata hold more than text."""
    response = event.get("response")
    if not response:
        return event
    response = {**response, "metadata": {key: str(value) for key, value in response["metadata"].items()}}
    if response["error"]:
        response["error"] = {**response["error"], "code": "server_error"}
    return {**event, "response": response}


def for_open_responses(event: dict[str, Any]) -> dict[str, Any]:
    """R knows fewer efforts than A and S and no tools but functions; it echoes no schema of a format."""
    response = event.get("response")
    if not response:
        return event
    response = dict(response)
    if response["reasoning"] and response["reasoning"]["effort"] in ("minimal", "max"):
        response["reasoning"] = {**response["reasoning"], "effort": None}
    response["output"] = [item for item in response["output"] if item["type"] in OPEN_RESPONSES_ITEMS]
    response["tools"] = [tool for tool in response["tools"] if tool["type"] == "function"]
    if "custom" in str(response["tool_choice"]) or "shell" in str(response["tool_choice"]):
        response["tool_choice"] = "auto"
    if response["text"]["format"]["type"] == "json_schema":
        format_ = {"description": None, "strict": True, **response["text"]["format"], "schema": None}
        response["text"] = {**response["text"], "format": format_}
    return {**event, "response": response}
