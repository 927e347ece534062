"""`/openapi.json` and `/docs`, written from the table of endpoints and the models that check requests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from serve_app.call import Call
from serve_app.conversation_body import ConversationBody, ItemsBody, MetadataBody
from serve_app.project_bodies import KeyBody, ProjectBody, QuotaBody, RotateBody
from serve_app.request_body import Body, CreateBody
from serve_app.response_reader import SHOWN
from serve_app.router import Endpoint

JSON = Mapping[str, Any]
REF: Final = "#/components/schemas/{model}"
QUERIES: Final[Mapping[str, JSON]] = {
    "stream": {"type": "boolean", "default": False},
    "starting_after": {"type": "integer", "minimum": 0},
    "include_obfuscation": {"type": "boolean", "default": True},
    "include[]": {"type": "array", "items": {"type": "string"}},
    "after": {"type": "string"},
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
    "order": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
    "status": {"type": "string", "enum": list(SHOWN)},
    "include_archived": {"type": "boolean", "default": False},
}
"""Every query parameter."""
_PAGE: Final = ("after", "limit", "order")
QUERIES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "GET /v1/responses": (*_PAGE, "status"),
    "GET /v1/responses/{response_id}": ("stream", "starting_after", "include_obfuscation", "include[]"),
    "GET /v1/responses/{response_id}/input_items": (*_PAGE, "include[]"),
    "POST /v1/conversations/{conversation_id}/items": ("include[]",),
    "GET /v1/conversations/{conversation_id}/items": (*_PAGE, "include[]"),
    "GET /v1/conversations/{conversation_id}/items/{item_id}": ("include[]",),
    "GET /v1/organization/projects": ("after", "limit", "include_archived"),
    "GET /v1/organization/projects/{project_id}/api_keys": ("after", "limit"),
}
"""Which of them an endpoint reads."""
BODIES: Final[Mapping[str, type[Body]]] = {
    "POST /v1/responses": CreateBody,
    "POST /v1/conversations": ConversationBody,
    "POST /v1/conversations/{conversation_id}": MetadataBody,
    "POST /v1/conversations/{conversation_id}/items": ItemsBody,
    "POST /v1/organization/projects": ProjectBody,
    "POST /v1/organization/projects/{project_id}": ProjectBody,
    "POST /v1/organization/projects/{project_id}/api_keys": KeyBody,
    "POST /v1/organization/projects/{project_id}/api_keys/{key_id}/rotate": RotateBody,
    "POST /v1/organization/projects/{project_id}/quota": QuotaBody,
}
"""What an endpoint reads a body as."""
STREAMING: Final = ("POST /v1/responses", "GET /v1/responses/{response_id}")
SHOWING_A_RESPONSE: Final = (*STREAMING, "POST /v1/responses/{response_id}/cancel")
_ERROR: Final[JSON] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        },
        "detail": {
            "type": "array",
            "description": "Of a 422: what is wrong where.",
            "items": {
                "type": "object",
                "required": ["loc", "msg", "type"],
                "properties": {
                    "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "msg": {"type": "string"},
                    "type": {"type": "string"},
                },
            },
        },
    },
}
_RESPONSE: Final[JSON] = {
    "type": "object",
    "description": "The response object of the Responses API.",
    "required": ["id", "object", "created_at", "model", "status", "output", "usage"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "response"},
        "created_at": {"type": "integer"},
        "model": {"type": "string"},
        "status": {"type": "string", "enum": list(SHOWN)},
        "output": {"type": "array", "items": {"type": "object"}},
        "usage": {"type": "object"},
    },
}


def endpoints(table: Sequence[Endpoint]) -> Sequence[Endpoint]:
    """The two endpoints that describe the `table`."""
    document = orjson.dumps(describe(table))
    # A page of our own: the usual ones load scripts from elsewhere, and a cluster may see no web.
    page = Path(__file__).with_name("docs.html").read_bytes()

    async def schema(call: Call) -> None:
        await call.answer(document)

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
    schemas: dict[str, JSON] = {"Error": _ERROR, "Response": _RESPONSE}
    for model in BODIES.values():
        body = model.model_json_schema(ref_template=REF)
        schemas |= {**body.pop("$defs", {}), model.__name__: body}
    about = "The Responses API of a self-hosted agent runtime."
    return {
        "openapi": "3.1.0",
        "info": {"title": "Rayspond", "version": "1", "description": about},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(endpoint: Endpoint, path: str) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    parameters += [
        {"name": name, "in": "query", "required": False, "schema": QUERIES[name]}
        for name in QUERIES_OF.get(f"{endpoint.method} {path}", ())
    ]
    operation: dict[str, Any] = {"summary": endpoint.summary, "parameters": parameters}
    content: dict[str, Any] = {"application/json": {}}
    name = f"{endpoint.method} {path}"
    if name in BODIES:
        operation["requestBody"] = {"required": True, "content": _json(BODIES[name].__name__)}
    if name in SHOWING_A_RESPONSE:
        content = _json("Response")
    if name in STREAMING:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    operation["responses"] = {
        "200": {"description": "Done.", "content": content},
        "default": {"description": "An error.", "content": _json("Error")},
    }
    return operation


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REF.format(model=schema)}}}
