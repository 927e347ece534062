"""`/openapi.json` and `/docs`, written from the table of endpoints and the models that check requests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import orjson

from serve_app.call import Call
from serve_app.context_body import CompactBody, CountBody
from serve_app.conversation_body import ConversationBody, ItemsBody, MetadataBody
from serve_app.openapi_schemas import JSON, REF, SCHEMAS, ref
from serve_app.project_bodies import KeyBody, ProjectBody, QuotaBody, RotateBody
from serve_app.request_body import NOT_YET, Body, CreateBody
from serve_app.response_reader import SHOWN
from serve_app.router import Endpoint

QUERIES: Final[Mapping[str, JSON]] = {
    "stream": {"type": "boolean", "default": False},
    "starting_after": {"type": "integer", "minimum": 0},
    "include_obfuscation": {"type": "boolean", "default": True},
    "include[]": {"type": "array", "items": {"type": "string"}},
    "after": {"type": "string"},
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    "order": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
    "status": {"type": "string", "enum": list(SHOWN)},
    "model": {"type": "string"},
    "include_archived": {"type": "boolean", "default": False},
}
"""Every query parameter."""
HEADERS: Final[Mapping[str, JSON]] = {
    "Idempotency-Key": {"type": "string", "description": "Makes a repeat safe: see docs/api.md."},
    "X-Rayspond-Dialect": {"type": "string", "enum": ["openai", "open-responses"]},
}
"""Request headers of single endpoints.  Credentials are security schemes."""
PROJECT_HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "project": ("X-Project-ID",),
    "operator": (),
    "anybody": (),
}
_PAGE: Final = ("after", "limit", "order")
_EVERY: Final = (400, 403, 500, 503)
_BODY: Final = (408, 413, 415, 422)
_MEANING: Final[Mapping[int, str]] = {
    400: "It makes no sense, or is not served.",
    401: "No key, or none that is known.",
    403: "This key may not do that; without keys, not from this machine.",
    404: "It is not there, or not yours.",
    408: "The body took too long.",
    409: "Another request with this key: it runs, was another one, or its response is erased.",
    413: "The body is too long.",
    415: "The body is compressed.",
    422: "Values of the wrong type or out of bounds; `detail` lists all of them.",
    429: "More than this project's quotas allow, or than an upstream does.",
    500: "Our mistake; the server's log tells more under the request's id.",
    502: "The model's server failed.",
    503: "It cannot be served now.",
}
_TOLD: Final[Mapping[str, JSON]] = {
    "x-request-id": {
        "description": "Names the request in the server's log.",
        "schema": {"type": "string"},
    },
    "x-rayspond-warning": {
        "description": "What of the request was left out.",
        "schema": {"type": "string"},
    },
    "idempotent-replayed": {
        "description": "This answer was given before.",
        "schema": {"const": "true"},
    },
    "retry-after": {
        "description": "Seconds to wait before the next try.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    **{
        f"x-ratelimit-{what}-{which}": {
            "description": "Of the project's quota a minute, where it has one.",
            "schema": {"type": "string"},
        }
        for what in ("limit", "remaining", "reset")
        for which in ("requests", "tokens")
    },
    "x-should-retry": {
        "description": "Whether trying again can help, where the status alone would mislead.",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
}


@dataclass(frozen=True, slots=True)
class Described:
    """What cannot be seen from an endpoint itself."""

    answer: str
    """The schema of a success."""
    body: type[Body] | None = None
    body_required: bool = True
    queries: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    also: tuple[int, ...] = ()
    """Further statuses of refusals."""
    example: JSON | None = None
    """Of the body."""
    streams: bool = False
    media: str = "application/json"


_ASKED: Final = {"model": "simulated", "input": "Hello"}
_ADMIN: Final = "/v1/organization/projects"
_ITEM: Final = {"type": "message", "role": "user", "content": "Hello"}
DESCRIBED: Final[Mapping[str, Described]] = {
    "POST /v1/responses": Described(
        "Response",
        CreateBody,
        headers=("Idempotency-Key", "X-Rayspond-Dialect"),
        also=(404, 409, 429),
        example=_ASKED,
        streams=True,
    ),
    "GET /v1/responses": Described("ResponseList", queries=(*_PAGE, "status", "model"), also=(404,)),
    "GET /v1/responses/{response_id}": Described(
        "Response",
        queries=("stream", "starting_after", "include_obfuscation", "include[]"),
        also=(429,),
        streams=True,
    ),
    "DELETE /v1/responses/{response_id}": Described("ResponseDeleted"),
    "POST /v1/responses/{response_id}/cancel": Described("Response"),
    "GET /v1/responses/{response_id}/input_items": Described("ItemList", queries=(*_PAGE, "include[]")),
    "POST /v1/responses/input_tokens": Described(
        "InputTokens", CountBody, body_required=False, also=(404,), example=_ASKED
    ),
    "POST /v1/responses/compact": Described("Compaction", CompactBody, also=(404, 429, 502), example=_ASKED),
    "POST /v1/conversations": Described(
        "Conversation", ConversationBody, body_required=False, example={"items": [_ITEM]}
    ),
    "GET /v1/conversations/{conversation_id}": Described("Conversation"),
    "POST /v1/conversations/{conversation_id}": Described(
        "Conversation", MetadataBody, example={"metadata": {"topic": "birds"}}
    ),
    "DELETE /v1/conversations/{conversation_id}": Described("ConversationDeleted"),
    "POST /v1/conversations/{conversation_id}/items": Described(
        "ItemList",
        ItemsBody,
        queries=("include[]",),
        headers=("Idempotency-Key",),
        also=(409,),
        example={"items": [_ITEM]},
    ),
    "GET /v1/conversations/{conversation_id}/items": Described("ItemList", queries=(*_PAGE, "include[]")),
    "GET /v1/conversations/{conversation_id}/items/{item_id}": Described("Item", queries=("include[]",)),
    "DELETE /v1/conversations/{conversation_id}/items/{item_id}": Described("Conversation"),
    "GET /v1/models": Described("ModelList"),
    "GET /v1/models/{id}": Described("Model"),
    "GET /healthz": Described("Health"),
    "GET /readyz": Described("Readiness"),
    "GET /hosts": Described("HostList"),
    "GET /metrics": Described("Metrics", media="text/plain"),
    f"GET {_ADMIN}": Described("ProjectList", queries=("after", "limit", "include_archived"), also=(404,)),
    f"POST {_ADMIN}": Described("Project", ProjectBody, example={"name": "Search"}),
    f"GET {_ADMIN}/{{project_id}}": Described("Project"),
    f"POST {_ADMIN}/{{project_id}}": Described("Project", ProjectBody, example={"name": "Search"}),
    f"POST {_ADMIN}/{{project_id}}/archive": Described("Project"),
    f"GET {_ADMIN}/{{project_id}}/api_keys": Described("KeyList", queries=("after", "limit")),
    f"POST {_ADMIN}/{{project_id}}/api_keys": Described("Key", KeyBody, example={"name": "ci"}),
    f"GET {_ADMIN}/{{project_id}}/api_keys/{{key_id}}": Described("Key"),
    f"DELETE {_ADMIN}/{{project_id}}/api_keys/{{key_id}}": Described("KeyDeleted"),
    f"POST {_ADMIN}/{{project_id}}/api_keys/{{key_id}}/rotate": Described(
        "Key", RotateBody, body_required=False, example={"overlap_seconds": 3600}
    ),
    f"GET {_ADMIN}/{{project_id}}/quota": Described("Quota"),
    f"POST {_ADMIN}/{{project_id}}/quota": Described("Quota", QuotaBody, example={"open_streams": 100}),
}
"""Every endpoint; a test fails for one that is not here."""


def endpoints(table: Sequence[Endpoint]) -> Sequence[Endpoint]:
    """The two endpoints that describe the `table`."""
    # Written when it is first asked for: many replicas are never asked.
    document = cache(lambda: orjson.dumps(describe(table)))
    # A page of our own: the usual ones load scripts from elsewhere, and a cluster may see no web.
    page = Path(__file__).with_name("docs.html").read_bytes()

    async def schema(call: Call) -> None:
        await call.answer(document())

    async def docs(call: Call) -> None:
        await call.answer(page, 200, (b"content-type", b"text/html; charset=utf-8"))

    return (
        Endpoint("GET", "/openapi.json", schema, "This description", "anybody"),
        Endpoint("GET", "/docs", docs, "This description, to read", "anybody"),
    )


def describe(table: Sequence[Endpoint]) -> dict[str, Any]:
    """The OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in table:
        path = re.sub(r"\{(\w+):path\}", r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, path)
    about = "The Responses API of a self-hosted agent runtime. Unknown fields of requests are ignored."
    return {
        "openapi": "3.1.0",
        "info": {"title": "Rayspond", "version": "1", "description": about},
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "headers": dict(_TOLD),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "A project's key."},
                "admin": {"type": "apiKey", "in": "header", "name": "X-Admin-Key"},
            },
        },
    }


@cache
def _schemas() -> dict[str, JSON]:
    schemas: dict[str, JSON] = {**SCHEMAS, "Metrics": {"type": "string"}}
    for one in DESCRIBED.values():
        if one.body is not None:
            body = one.body.model_json_schema(ref_template=REF)
            schemas |= {**body.pop("$defs", {}), one.body.__name__: body}
    refused = {name: {"type": "null", "description": f"Not served. {why}"} for name, why in NOT_YET.items()}
    create = schemas[CreateBody.__name__]
    return {**schemas, CreateBody.__name__: {**create, "properties": {**create["properties"], **refused}}}


def _operation(endpoint: Endpoint, path: str) -> dict[str, Any]:
    one = DESCRIBED[f"{endpoint.method} {path}"]
    names = re.findall(r"\{(\w+)\}", path)
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "parameters": [
            *(_parameter(name, "path", {"type": "string"}) for name in names),
            *(_parameter(name, "query", QUERIES[name]) for name in one.queries),
            *(_parameter(name, "header", HEADERS[name]) for name in one.headers),
            *(_parameter(name, "header", {"type": "string"}) for name in PROJECT_HEADERS[endpoint.access]),
        ],
        "responses": _answers(endpoint, one, bool(names)),
        "security": [] if endpoint.access == "anybody" else [{"admin": []}, {"key": []}, {}],
    }
    if one.body is not None:
        content: dict[str, Any] = {"schema": ref(one.body.__name__)}
        if one.example is not None:
            content["example"] = one.example
        operation["requestBody"] = {
            "required": one.body_required,
            "content": {"application/json": content},
        }
    return operation


def _parameter(name: str, place: str, schema: JSON) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _answers(endpoint: Endpoint, one: Described, names_something: bool) -> dict[str, Any]:
    """The success, and every refusal that may come in its place."""
    statuses = {*_EVERY, *one.also, *(_BODY if one.body is not None else ())}
    statuses |= {401, 404, 429} if endpoint.access != "anybody" else set()
    statuses |= {404} if names_something else set()
    content: dict[str, Any] = {one.media: {"schema": ref(one.answer)}}
    left = [name for name in _TOLD if endpoint.counts and name.startswith("x-ratelimit-")]
    told = ["x-request-id", *left]
    if one.streams:
        content["text/event-stream"] = {"schema": ref("WireEvent")}
        told += ["x-rayspond-warning"]
    if "Idempotency-Key" in one.headers:
        told += ["idempotent-replayed"]
    answers: dict[str, Any] = {"200": {"description": "Done.", "content": content, "headers": _headers(told)}}
    for status in sorted(statuses):
        told = ["x-request-id"]
        if status in (409, 429, 500, 503):
            told += ["retry-after", "x-should-retry", *(left if status == 429 else ())]
        answers[str(status)] = {
            "description": _MEANING.get(status, HTTPStatus(status).phrase),
            "content": {"application/json": {"schema": ref("Error")}},
            "headers": _headers(told),
        }
    if endpoint.path == "/readyz":
        answers["503"]["content"] = content
    return answers


def _headers(names: Sequence[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
