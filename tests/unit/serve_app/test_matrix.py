"""Every route, every place for an id, every kind of credential: who gets what, and who learns nothing.

The routes are those of `/openapi.json`: a new one fails here until it has a row.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pytest

from serve_app.router import Access
from tests.unit.serve_app.keyed import AS_ADMIN, PROJECTS, UNKNOWN_PROJECT, Keyed, Tenant, keyed

SAYING: Final = {"model": "simulated", "input": "Hello"}
UNKNOWN: Final = {
    "response_id": "resp_" + "0" * 32,
    "conversation_id": "conv_" + "0" * 32,
    "item_id": "msg_" + "0" * 38,
}
"""Ids that look like ours and that nobody has."""
ID_FIELDS: Final = frozenset({"previous_response_id", "conversation", "input"})
"""Fields of a body that may name something that exists."""

Body = Callable[["Things"], Any]


class Slot(NamedTuple):
    """A place of a request for the id of something that belongs to a project."""

    thing: str
    path: bool = False
    query: str = ""
    body: Callable[[str], Any] | None = None


@dataclass(frozen=True)
class Row:
    """What is to be expected of a route."""

    access: Access = "project"
    body: Body | None = None
    slots: tuple[Slot, ...] = ()
    """Besides those of the path."""
    queries: tuple[str, ...] = ("",)
    """Ways to ask."""


Things = Mapping[str, str]
"""Ids of one project's own things, by the names that paths give them."""


MODELS: Final = Row()
ADMIN: Final = Row("operator")
CREATE: Final = Row(
    body=lambda things: SAYING,
    slots=(
        Slot("response_id", body=lambda id: {**SAYING, "previous_response_id": id}),
        Slot("conversation_id", body=lambda id: {**SAYING, "conversation": id}),
        Slot("conversation_id", body=lambda id: {**SAYING, "conversation": {"id": id}}),
        Slot("item_id", body=lambda id: {**SAYING, "input": [{"type": "item_reference", "id": id}]}),
        Slot("item_id", body=lambda id: {**SAYING, "input": [{"id": id}]}),
    ),
)
CONTEXT: Final = Row(
    CREATE.access, CREATE.body, tuple(slot for slot in CREATE.slots if slot.thing != "conversation_id")
)
ITEM: Final = {"type": "message", "role": "user", "content": "x"}

ROWS: Final[Mapping[str, Row]] = {
    "POST /v1/responses": CREATE,
    "GET /v1/responses": Row(slots=(Slot("response_id", query="after"),)),
    "GET /v1/responses/{response_id}": Row(queries=("", "?stream=true", "?stream=true&starting_after=1")),
    "DELETE /v1/responses/{response_id}": Row(),
    "POST /v1/responses/{response_id}/cancel": Row(),
    "GET /v1/responses/{response_id}/input_items": Row(),
    "POST /v1/responses/input_tokens": CREATE,
    "POST /v1/responses/compact": CONTEXT,
    "POST /v1/conversations": Row(body=lambda things: {}),
    "GET /v1/conversations/{conversation_id}": Row(),
    "POST /v1/conversations/{conversation_id}": Row(body=lambda things: {"metadata": {}}),
    "DELETE /v1/conversations/{conversation_id}": Row(),
    "GET /v1/conversations/{conversation_id}/items": Row(slots=(Slot("item_id", query="after"),)),
    "POST /v1/conversations/{conversation_id}/items": Row(body=lambda things: {"items": [ITEM]}),
    "GET /v1/conversations/{conversation_id}/items/{item_id}": Row(),
    "DELETE /v1/conversations/{conversation_id}/items/{item_id}": Row(),
    "GET /v1/models": MODELS,
    "GET /v1/models/{id}": MODELS,
    "GET /healthz": Row("anybody"),
    "GET /readyz": Row("anybody"),
    "GET /hosts": ADMIN,
    "GET /metrics": ADMIN,
    f"GET {PROJECTS}": ADMIN,
    f"POST {PROJECTS}": Row("operator", body=lambda things: {"name": "new"}),
    f"GET {PROJECTS}/{{project_id}}": ADMIN,
    f"POST {PROJECTS}/{{project_id}}": Row("operator", body=lambda things: {"name": "new"}),
    f"POST {PROJECTS}/{{project_id}}/archive": ADMIN,
    f"GET {PROJECTS}/{{project_id}}/api_keys": ADMIN,
    f"POST {PROJECTS}/{{project_id}}/api_keys": Row("operator", body=lambda things: {"name": "new"}),
    f"GET {PROJECTS}/{{project_id}}/api_keys/{{key_id}}": ADMIN,
    f"DELETE {PROJECTS}/{{project_id}}/api_keys/{{key_id}}": ADMIN,
    f"POST {PROJECTS}/{{project_id}}/api_keys/{{key_id}}/rotate": ADMIN,
    f"GET {PROJECTS}/{{project_id}}/quota": ADMIN,
    f"POST {PROJECTS}/{{project_id}}/quota": Row("operator", body=lambda things: {"open_streams": 5}),
}


class World:
    """Two projects that have one thing of each kind."""

    def __init__(self, door: Keyed, ours: Things, theirs: Things, revoked: str) -> None:
        self.door, self.ours, self.theirs = door, ours, theirs
        self.revoked = revoked

    def credentials(self) -> dict[str, tuple[dict[str, str], int, int]]:
        """Headers by the kind of credential, and what they get: of a project's routes, and of operators'."""
        ours, theirs = self.door.ours, self.door.theirs
        flipped = ours.key[:-1] + ("A" if ours.key[-1] != "A" else "B")
        return {
            "none": ({}, 401, 401),
            "malformed": ({"authorization": "Basic abc"}, 401, 401),
            "unknown": ({"authorization": f"Bearer {flipped}"}, 401, 401),
            "revoked": ({"authorization": f"Bearer {self.revoked}"}, 401, 401),
            "wrong admin key": ({"x-admin-key": "wrong"}, 401, 401),
            "admin key as bearer": ({"authorization": f"Bearer {AS_ADMIN['x-admin-key']}"}, 401, 200),
            "other project named": ({**ours.headers, "x-project-id": theirs.project}, 403, 403),
            "unknown project named": ({**ours.headers, "openai-project": UNKNOWN_PROJECT}, 403, 403),
            "unknown project of an operator": ({**AS_ADMIN, "x-project-id": UNKNOWN_PROJECT}, 404, 200),
            "other project": (theirs.headers, 404, 403),
            "operator without a project": (AS_ADMIN, 404, 200),
            "own, named": ({**ours.headers, "x-project-id": ours.project}, 200, 403),
            "own": (ours.headers, 200, 403),
            "operator": ({**AS_ADMIN, "x-project-id": ours.project}, 200, 200),
        }


async def _things(door: Keyed, tenant: Tenant) -> Things:
    _, response = await door.ask("POST", "/v1/responses", tenant.headers, {**SAYING, "store": True})
    _, begun = await door.ask("POST", "/v1/conversations", tenant.headers, {"items": [ITEM]})
    items = f"/v1/conversations/{begun['id']}/items"
    _, listed = await door.ask("GET", items, tenant.headers)
    return {
        "response_id": str(response["id"]),
        "conversation_id": str(begun["id"]),
        "item_id": str(listed["first_id"]),
        "project_id": tenant.project,
        "key_id": tenant.key_id,
        "id": "simulated",
    }


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with keyed() as door:
        path = f"{PROJECTS}/{door.ours.project}/api_keys"
        _, made = await door.ask("POST", path, AS_ADMIN, {"name": "old"})
        await door.ask("DELETE", f"{path}/{made['id']}", AS_ADMIN)
        yield World(
            door, await _things(door, door.ours), await _things(door, door.theirs), str(made["value"])
        )


async def test_every_route_and_every_place_for_an_id_has_its_row(world: World) -> None:
    document = (await world.door.server.client.get("/openapi.json")).json()
    routes = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert routes == set(ROWS)
    for route, row in ROWS.items():
        method, path = route.split(" ")
        operation = document["paths"][path][method.lower()]
        for name in re.findall(r"\{(\w+)\}", path):
            assert name in world.ours, f"{route}: what is {name}?"
        queries = {one["name"] for one in operation["parameters"] if one["in"] == "query"}
        if row.access == "project" and "after" in queries and "input_items" not in path:
            assert any(slot.query == "after" for slot in row.slots), f"{route}: after names something"
        fields = _fields(document, operation)
        tried = {name for slot in row.slots if slot.body for name in slot.body("x") if name in ID_FIELDS}
        assert fields & ID_FIELDS <= tried, f"{route}: a field names something"


def _fields(document: Any, operation: Any) -> set[str]:
    if "requestBody" not in operation:
        return set()
    name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    return set(document["components"]["schemas"][name]["properties"])


@pytest.mark.parametrize("route", ROWS)
async def test_who_gets_what(world: World, route: str) -> None:
    row = ROWS[route]
    method, path = route.split(" ")
    body = row.body(world.ours) if row.body else None
    for query in row.queries:
        served = False
        for kind, headers, expected in _in_order(world, row, path):
            if served and method != "GET":
                break  # What was there is gone, or changed by its owner.
            status = (await _ask(world, method, _path(path, world.ours) + query, headers, body))[0]
            assert status == expected, f"{kind}: {status}"
            served = status == 200
        assert served


def _in_order(world: World, row: Row, path: str) -> list[tuple[str, Mapping[str, str], int]]:
    """The kinds of credentials with what they get, those that are refused first."""
    names_something = bool(set(re.findall(r"\{(\w+)\}", path)) & set(UNKNOWN))
    kinds = []
    for kind, (headers, of_project, of_operators) in world.credentials().items():
        expected = {"project": of_project, "operator": of_operators, "anybody": 200}[row.access]
        if expected == 404 and kind != "unknown project of an operator" and not names_something:
            expected = 200  # The path names nothing that belongs to anybody: they get what is theirs.
        kinds.append((kind, headers, expected))
    return sorted(kinds, key=lambda kind: kind[2] == 200)


@pytest.mark.parametrize("route", [route for route, row in ROWS.items() if row.access == "project"])
async def test_a_foreign_id_is_exactly_like_an_unknown_one(world: World, route: str) -> None:
    row = ROWS[route]
    method, path = route.split(" ")
    own = [Slot(name, path=True) for name in re.findall(r"\{(\w+)\}", path) if name in UNKNOWN]
    for slot in (*row.slots, *own):
        for query in row.queries:
            answers = []
            for id in (world.ours[slot.thing], UNKNOWN[slot.thing]):
                things = {**world.theirs, slot.thing: id} if slot.path else world.theirs
                body = slot.body(id) if slot.body else row.body(things) if row.body else None
                asked = _path(path, things) + (f"?{slot.query}={id}" if slot.query else query)
                answers.append(await _ask(world, method, asked, world.door.theirs.headers, body, hide=id))
            foreign, unknown = answers
            assert foreign == unknown
            assert 400 <= foreign[0] < 500, f"{slot}: {foreign}"
    assert (await _untouched(world)) == (200, 200)


async def _untouched(world: World) -> tuple[int, int]:
    response = f"/v1/responses/{world.ours['response_id']}"
    item = f"/v1/conversations/{world.ours['conversation_id']}/items/{world.ours['item_id']}"
    ours = world.door.ours.headers
    return (await _ask(world, "GET", response, ours))[0], (await _ask(world, "GET", item, ours))[0]


async def test_two_projects_may_use_the_same_idempotency_key(world: World) -> None:
    made = []
    for tenant in (world.door.ours, world.door.theirs):
        headers = {**tenant.headers, "idempotency-key": "the same"}
        made.append((await world.door.ask("POST", "/v1/responses", headers, SAYING))[1]["id"])
    assert made[0] != made[1]


async def _ask(
    world: World, method: str, path: str, headers: Mapping[str, str], body: Any = None, hide: str = ""
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer, without the id that was asked for."""
    answer = await world.door.server.client.request(method, path, headers=headers, json=body)
    told = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    content = answer.content
    if hide:
        told.pop("content-length", None)
        content = content.replace(hide.encode(), b"<id>")
    return answer.status_code, content, told


def _path(path: str, things: Things) -> str:
    return re.sub(r"\{(\w+)\}", lambda name: things[name[1]], path)
