"""The response object: what clients get of a response (PROTOCOL.md, section c).

All 31 fields are always there; usage is always an object; what may be omitted but not null is omitted.
"""

from __future__ import annotations

from typing import Any, Final

from runtime.model import Usage
from runtime.response import events as e
from runtime.response.aggregate import ResponseState, Status, item_json
from runtime.response.request import ResponseRequest
from runtime.response.wire import WireEvent, dumps

# What a request asks for and what it gets, where the two have different names.
_SERVICE_TIERS: Final = {None: "default", "auto": "default", "fast": "priority"}


def response_object(state: ResponseState) -> dict[str, Any]:
    """The object as of `state`.  Not for new or erased responses: they have none."""
    created, ending, request = state.created, state.ending, state.request
    assert created is not None
    completed_at = ending.at if isinstance(ending, e.ResponseCompleted) else None
    incomplete = {"reason": ending.reason} if isinstance(ending, e.ResponseIncomplete) else None
    error = {"code": ending.code, "message": ending.message} if isinstance(ending, e.ResponseFailed) else None
    return {
        "id": created.id,
        "object": "response",
        "created_at": created.created_at,
        "completed_at": completed_at,
        "status": state.status.value,
        "background": request.background,
        "error": error,
        "incomplete_details": incomplete,
        **_echo(request),
        "output": _output(state),
        "usage": usage_object(state.usage),
    }


def usage_object(usage: Usage) -> dict[str, Any]:
    """The usage object, every key present."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def snapshot_bytes(event: WireEvent) -> bytes:
    """The `response` member of a lifecycle event, byte for byte: the body of a finished JSON answer."""
    prefix = lifecycle_prefix(event.type, event.number)
    assert event.data.startswith(prefix), f"{event.type} holds no response object"
    return event.data[len(prefix) : -1]


def lifecycle_data(type: str, number: int, state: ResponseState) -> bytes:
    """The data of a lifecycle event: the snapshot comes last, so that its bytes can be cut out."""
    return lifecycle_prefix(type, number) + dumps(response_object(state)) + b"}"


def lifecycle_prefix(type: str, number: int) -> bytes:
    """What stands before the snapshot."""
    return b'{"type":"%b","sequence_number":%d,"response":' % (type.encode(), number)


def _echo(request: ResponseRequest) -> dict[str, Any]:
    reasoning = request.reasoning or {}
    echo: dict[str, Any] = {
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": request.model,
        "parallel_tool_calls": request.parallel_tool_calls,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": request.safety_identifier,
        "service_tier": _SERVICE_TIERS.get(request.service_tier, request.service_tier),
        "store": request.store,
        "temperature": _number(request.temperature, 1.0),
        "text": request.text,
        "tool_choice": request.tool_choice,
        "tools": request.tools,
        "top_logprobs": request.top_logprobs or 0,
        "top_p": _number(request.top_p, 1.0),
        "presence_penalty": _number(request.presence_penalty, 0.0),
        "frequency_penalty": _number(request.frequency_penalty, 0.0),
        "truncation": request.truncation,
        "metadata": request.metadata,
    }
    if request.user is not None:
        echo["user"] = request.user
    if request.conversation is not None:
        echo["conversation"] = {"id": request.conversation}
    return echo


def _number(value: float | None, default: float) -> float:
    return default if value is None else value


def _output(state: ResponseState) -> list[dict[str, Any]]:
    if state.open_item is None:
        return list(state.output)
    return [*state.output, item_json(state.open_item, Status.IN_PROGRESS.value)]
