"""The shapes of answers, as `/openapi.json` shows them; requests are described by what checks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from serve_app.response_reader import SHOWN

JSON = Mapping[str, Any]
REF: Final = "#/components/schemas/{model}"

_TEXT: Final[JSON] = {"type": "string"}
_TEXT_OR_NOT: Final[JSON] = {"type": ["string", "null"]}
_WHOLE: Final[JSON] = {"type": "integer"}
_WHOLE_OR_NOT: Final[JSON] = {"type": ["integer", "null"]}
_NUMBER: Final[JSON] = {"type": "number"}
_FLAG: Final[JSON] = {"type": "boolean"}
_OBJECT: Final[JSON] = {"type": "object"}
_OBJECT_OR_NOT: Final[JSON] = {"type": ["object", "null"]}


def ref(name: str) -> dict[str, Any]:
    """A reference to a schema of that name."""
    return {"$ref": REF.format(model=name)}


def _object(about: str, optional: Mapping[str, JSON] | None = None, /, **fields: JSON) -> dict[str, Any]:
    """An object that has all of `fields`, and perhaps the `optional` ones."""
    return {
        "type": "object",
        "description": about,
        "required": list(fields),
        "properties": {**fields, **(optional or {})},
    }


def _one_of(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def _list_of(name: str) -> dict[str, Any]:
    return _object(
        "A page of a list; the next one comes `after` its last id.",
        object={"const": "list"},
        data={"type": "array", "items": ref(name)},
        first_id=_TEXT_OR_NOT,
        last_id=_TEXT_OR_NOT,
        has_more=_FLAG,
    )


def _deleted(kind: str) -> dict[str, Any]:
    return _object("It is gone.", id=_TEXT, object={"const": kind}, deleted={"const": True})


_ERROR: Final = _object(
    "What is wrong, and with which field.",
    {
        "detail": {
            "type": "array",
            "description": "Of a 422: all that is wrong, in FastAPI's shape.",
            "items": _object(
                "One of them.",
                loc={"type": "array", "items": {"type": ["string", "integer"]}},
                msg=_TEXT,
                type=_TEXT,
            ),
        }
    },
    error=_object(
        "In OpenAI's shape.",
        {"response_id": {"type": "string", "description": "The response that it is about."}},
        message=_TEXT,
        type=_TEXT,
        param=_TEXT_OR_NOT,
        code=_TEXT_OR_NOT,
    ),
)
_USAGE: Final = _object(
    "Tokens; zeros until they are known.",
    input_tokens=_WHOLE,
    input_tokens_details=_object("Of those.", cached_tokens=_WHOLE, cache_write_tokens=_WHOLE),
    output_tokens=_WHOLE,
    output_tokens_details=_object("Of those.", reasoning_tokens=_WHOLE),
    total_tokens=_WHOLE,
)
_RESPONSE: Final = _object(
    "The response object of the Responses API.",
    {"user": _TEXT, "conversation": _object("Which it belongs to.", id=_TEXT)},
    id=_TEXT,
    object={"const": "response"},
    created_at=_WHOLE,
    completed_at=_WHOLE_OR_NOT,
    status=_one_of(*SHOWN),
    background=_FLAG,
    error=_OBJECT_OR_NOT,
    incomplete_details=_OBJECT_OR_NOT,
    instructions=_TEXT_OR_NOT,
    max_output_tokens=_WHOLE_OR_NOT,
    max_tool_calls=_WHOLE_OR_NOT,
    model=_TEXT,
    parallel_tool_calls=_FLAG,
    previous_response_id=_TEXT_OR_NOT,
    prompt_cache_key=_TEXT_OR_NOT,
    reasoning=_OBJECT_OR_NOT,
    safety_identifier=_TEXT_OR_NOT,
    service_tier=_TEXT,
    store=_FLAG,
    temperature=_NUMBER,
    text=_OBJECT,
    tool_choice={"type": ["string", "object"]},
    tools={"type": "array", "items": _OBJECT},
    top_logprobs=_WHOLE,
    top_p=_NUMBER,
    presence_penalty=_NUMBER,
    frequency_penalty=_NUMBER,
    truncation=_one_of("auto", "disabled"),
    metadata=_OBJECT,
    output={"type": "array", "items": ref("Item")},
    usage=ref("Usage"),
)
_ITEM: Final = _object(
    "An item of an input or an output; docs/api.md lists the types.",
    {"status": _TEXT, "role": _TEXT, "content": {"type": "array", "items": _OBJECT}},
    id=_TEXT,
    type=_TEXT,
)
_PROJECT: Final = _object(
    "A project.",
    object={"const": "organization.project"},
    id=_TEXT,
    name=_TEXT,
    created_at=_WHOLE,
    archived_at=_WHOLE_OR_NOT,
    status=_one_of("active", "archived"),
)
_KEY: Final = _object(
    "A project's key; its value is shown once, when it is made.",
    {"value": _TEXT, "replaces": _OBJECT, "last_used_at": _WHOLE_OR_NOT},
    object={"const": "organization.project.api_key"},
    id=_TEXT,
    name=_TEXT,
    redacted_value=_TEXT,
    created_at=_WHOLE,
    created_by=_TEXT_OR_NOT,
    expires_at=_WHOLE_OR_NOT,
)

SCHEMAS: Final[Mapping[str, JSON]] = {
    "Error": _ERROR,
    "Usage": _USAGE,
    "Item": _ITEM,
    "Response": _RESPONSE,
    "WireEvent": {
        "type": "object",
        "description": "One event: its type and its JSON in one line; the last one is only `data: [DONE]`.",
        "required": ["data"],
        "properties": {"event": _TEXT, "data": _TEXT},
    },
    "ResponseList": _list_of("Response"),
    "ItemList": _list_of("Item"),
    "ResponseDeleted": _deleted("response.deleted"),
    "InputTokens": _object(
        "A count.", object={"const": "response.input_tokens"}, input_tokens={"type": "integer", "minimum": 0}
    ),
    "Compaction": _object(
        "What the user said, and one item that stands for the whole conversation.",
        id=_TEXT,
        object={"const": "response.compaction"},
        created_at=_WHOLE,
        output={"type": "array", "items": ref("Item")},
        usage=ref("Usage"),
    ),
    "Conversation": _object(
        "A conversation.", id=_TEXT, object={"const": "conversation"}, created_at=_WHOLE, metadata=_OBJECT
    ),
    "ConversationDeleted": _deleted("conversation.deleted"),
    "Model": _object(
        "A model or an agent.", id=_TEXT, object={"const": "model"}, created=_WHOLE, owned_by=_TEXT
    ),
    "ModelList": _object(
        "All of them.", object={"const": "list"}, data={"type": "array", "items": ref("Model")}
    ),
    "Health": _object("It answers.", status={"const": "ok"}),
    "Readiness": _object(
        "What keeps it from serving, and what should be seen to.",
        status=_one_of("ready", "unready"),
        problems={"type": "array", "items": _TEXT},
        warnings={"type": "array", "items": _TEXT},
    ),
    "HostList": _object(
        "Every host with what it runs.", object={"const": "list"}, data={"type": "array", "items": _OBJECT}
    ),
    "Project": _PROJECT,
    "ProjectList": _list_of("Project"),
    "Key": _KEY,
    "KeyList": _list_of("Key"),
    "KeyDeleted": _deleted("organization.project.api_key.deleted"),
    "Quota": _object(
        "A project's bounds; null is none.",
        dict.fromkeys(
            (
                "requests_per_minute",
                "tokens_per_minute",
                "running_responses",
                "open_streams",
                "stored_bytes",
            ),
            _WHOLE_OR_NOT,
        ),
        object={"const": "organization.project.quota"},
        project_id=_TEXT,
    ),
}
"""Every answer's schema by its name."""
