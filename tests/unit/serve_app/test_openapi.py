"""The description is of what is served, all of it and nothing else."""

from __future__ import annotations

import re
from typing import Any

from jsonschema import Draft202012Validator
from openai.types.responses import response_create_params

from serve_app.openapi import describe
from serve_app.request_body import NOT_YET, CreateBody
from tests.unit.serve_app.served import Served

# Hints of OpenAI's own service that change no answer here; they are accepted and ignored.
HINTS = {
    "access_programs",
    "background_options",
    "image",
    "personality",
    "prompt_cache_options",
    "prompt_cache_retention",
}


async def test_every_endpoint_is_described_and_the_other_way_round(server: Served) -> None:
    document = (await server.client.get("/openapi.json")).json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    served = {
        (endpoint.method, re.sub(r":path\}", "}", endpoint.path)) for endpoint in server.api.router.endpoints
    }
    assert served - described == {("GET", "/openapi.json"), ("GET", "/docs")}
    assert described <= served


async def test_every_answer_has_a_shape_and_every_body_an_example(server: Served) -> None:
    document = (await server.client.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            for status, answer in operation["responses"].items():
                assert answer["description"], where
                assert "x-request-id" in answer["headers"], where
                for content in answer["content"].values():
                    assert content["schema"], f"{where} {status}"
            if "requestBody" in operation:
                content = operation["requestBody"]["content"]["application/json"]
                reference = content["schema"]["$ref"].rpartition("/")[2]
                schema = {
                    **document["components"]["schemas"][reference],
                    "components": document["components"],
                }
                Draft202012Validator(schema).validate(content["example"])


async def test_every_reference_leads_somewhere(server: Served) -> None:
    document = (await server.client.get("/openapi.json")).json()

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [one for part in value.values() for one in references(part)]
        return [one for part in value for one in references(part)] if isinstance(value, list) else []

    found = references(document)
    assert found
    for reference in found:
        place = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


async def test_the_page_reads_the_description(server: Served) -> None:
    page = await server.client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "openapi.json" in page.text
    assert "://" not in page.text, "it works where no other site can be reached"


def test_every_field_of_openais_client_is_known() -> None:
    """A field that is new there must be served, refused by name, or be a hint that changes no answer."""
    theirs = set(response_create_params.ResponseCreateParamsBase.__annotations__) | {"stream"}
    assert theirs <= set(CreateBody.model_fields) | set(NOT_YET) | HINTS


def test_the_bounds_of_the_api_page_are_described() -> None:
    body = describe([])["components"]["schemas"]["CreateBody"]["properties"]

    def bounds(name: str) -> dict[str, Any]:
        return {key: value for one in body[name]["anyOf"] for key, value in one.items() if key != "type"}

    assert bounds("max_output_tokens") == {"minimum": 1}
    assert bounds("temperature") == {"minimum": 0, "maximum": 2}
    assert bounds("service_tier") == {"minLength": 1, "maxLength": 64}
    assert bounds("user") == {"minLength": 1, "maxLength": 200}


async def test_answers_are_as_they_are_described(server: Served) -> None:
    """Of one request for each thing that can be read; `tests/fuzz` asks for everything, and for nonsense."""
    document = (await server.client.get("/openapi.json")).json()
    made = (await server.create(input="Hello")).json()
    seen = set()
    for path, methods in document["paths"].items():
        if "get" in methods:
            answer = await server.client.get(path.replace("{response_id}", made["id"]))
            content = methods["get"]["responses"][str(answer.status_code)]["content"]
            seen.add(answer.status_code)
            if "application/json" in content:
                schema = {**content["application/json"]["schema"], "components": document["components"]}
                Draft202012Validator(schema).validate(answer.json())
    assert seen == {200, 404}
