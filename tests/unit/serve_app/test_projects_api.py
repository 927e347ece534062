"""The endpoints for operators, with plain HTTP and with OpenAI's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest

from tests.unit.serve_app.keyed import ADMIN, AS_ADMIN, PROJECTS, UNKNOWN_PROJECT, Keyed, keyed
from tests.unit.serve_app.served import LOOPBACK, Served


@pytest.fixture
async def door() -> AsyncIterator[Keyed]:
    async with keyed() as one:
        yield one


async def ask(door: Keyed, method: str, path: str, json: object = None, status: int = 200) -> dict[str, Any]:
    answered, told = await door.ask(method, PROJECTS + path, AS_ADMIN, json)
    assert answered == status, told
    return told


async def test_a_project_lives_and_is_archived(door: Keyed) -> None:
    made = await ask(door, "POST", "", {"name": "Search"})
    assert made["object"] == "organization.project"
    assert (made["name"], made["status"], made["archived_at"]) == ("Search", "active", None)
    path = f"/{made['id']}"
    assert await ask(door, "GET", path) == made
    assert (await ask(door, "POST", path, {"name": "Find"}))["name"] == "Find"
    archived = await ask(door, "POST", path + "/archive")
    assert archived["status"] == "archived"
    assert archived["archived_at"] >= archived["created_at"]
    await ask(door, "POST", path + "/api_keys", {"name": "late"}, status=404)
    listed = [one["id"] for one in (await ask(door, "GET", ""))["data"]]
    assert listed == [door.ours.project, door.theirs.project, "default"]
    everything = [one["id"] for one in (await ask(door, "GET", "?include_archived=true"))["data"]]
    assert everything == [door.ours.project, door.theirs.project, made["id"], "default"]


async def test_lists_come_in_pages(door: Keyed) -> None:
    seen: list[str] = []
    for after in ("", f"&after={door.ours.project}", f"&after={door.theirs.project}"):
        page = await ask(door, "GET", f"?limit=1{after}")
        seen += [one["id"] for one in page["data"]]
        assert page["first_id"] == page["last_id"] == seen[-1]
        assert page["has_more"] == (len(seen) < 3)
    assert seen == [door.ours.project, door.theirs.project, "default"]
    assert (await ask(door, "GET", "?after=default"))["data"] == []
    await ask(door, "GET", f"?after={UNKNOWN_PROJECT}", status=404)
    await ask(door, "GET", "?limit=0", status=400)


async def test_a_key_is_shown_once(door: Keyed) -> None:
    path = f"/{door.ours.project}/api_keys"
    made = await ask(door, "POST", path, {"name": "laptop"})
    assert made["redacted_value"].endswith(made["value"][-4:])
    shown = await ask(door, "GET", f"{path}/{made['id']}")
    assert shown == {name: value for name, value in made.items() if name != "value"}
    listed = await ask(door, "GET", path)
    assert [one["name"] for one in listed["data"]] == ["ours's", "laptop"]
    assert made["value"] not in str(listed)
    rest = await ask(door, "GET", f"{path}?after={door.ours.key_id}&limit=1")
    assert [one["id"] for one in rest["data"]] == [made["id"]]
    assert (await ask(door, "DELETE", f"{path}/{made['id']}"))["deleted"] is True
    await ask(door, "GET", f"{path}/{made['id']}", status=404)
    await ask(door, "DELETE", f"{path}/{made['id']}")
    await ask(door, "DELETE", f"{path}/key_{'0' * 16}", status=404)


async def test_a_key_is_rotated_without_downtime(door: Keyed) -> None:
    path = f"/{door.ours.project}/api_keys/{door.ours.key_id}/rotate"
    made = await ask(door, "POST", path)
    assert made["replaces"]["id"] == door.ours.key_id
    assert made["replaces"]["expires_at"] == made["created_at"] + 24 * 3600
    for key in (door.ours.key, made["value"]):
        assert (await door.ask("GET", "/v1/models", {"authorization": f"Bearer {key}"}))[0] == 200
    again = await ask(
        door, "POST", f"/{door.ours.project}/api_keys/{made['id']}/rotate", {"overlap_seconds": 0}
    )
    for key, status in ((made["value"], 401), (again["value"], 200), (door.ours.key, 200)):
        assert (await door.ask("GET", "/v1/models", {"authorization": f"Bearer {key}"}))[0] == status


async def test_a_quota_is_set_in_parts(door: Keyed) -> None:
    path = f"/{door.ours.project}/quota"
    await ask(door, "POST", path, {"requests_per_minute": 60, "open_streams": 5})
    changed = await ask(door, "POST", path, {"open_streams": None, "stored_bytes": 0})
    assert changed == await ask(door, "GET", path)
    assert (changed["requests_per_minute"], changed["open_streams"], changed["stored_bytes"]) == (60, None, 0)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("", {}, 422),
        ("", {"name": ""}, 422),
        ("", {"name": 5}, 422),
        ("", {"name": "a\nb"}, 422),
        ("", [], 422),
        ("/default/quota", {"open_streams": -1}, 422),
        ("/default/quota", {"open_streams": "5"}, 422),
        ("/default/quota", {"open_streams": 2**70}, 422),
        ("/default/api_keys", {"name": "x" * 201}, 422),
        ("/default/archive", None, 400),
        (f"/{UNKNOWN_PROJECT}", {"name": "x"}, 404),
        ("/nothing", {"name": "x"}, 404),
    ],
)
async def test_what_makes_no_sense_is_refused(door: Keyed, path: str, body: object, status: int) -> None:
    told = await ask(door, "POST", path, body, status)
    assert told["error"]["type"] == "invalid_request_error"


async def test_openais_client_administers_projects(door: Keyed) -> None:
    transport = httpx2.ASGITransport(app=door.server.api, client=LOOPBACK)
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        openai.AsyncOpenAI(
            api_key="sk-x", admin_api_key=ADMIN, base_url="http://localhost/v1", http_client=http
        ) as client,
    ):
        projects = client.admin.organization.projects
        made = await projects.create(name="Search")
        assert (await projects.retrieve(made.id)).name == "Search"
        assert (await projects.update(made.id, name="Find")).name == "Find"
        assert made.id in [one.id async for one in projects.list(limit=1)]
        keys = [one async for one in projects.api_keys.list(door.ours.project)]
        assert [one.id for one in keys] == [door.ours.key_id]
        found = await projects.api_keys.retrieve(door.ours.key_id, project_id=door.ours.project)
        assert found.owner.type == "service_account"
        gone = await projects.api_keys.delete(door.ours.key_id, project_id=door.ours.project)
        assert gone.deleted
        assert (await projects.archive(made.id)).status == "archived"


async def test_an_open_server_can_be_administered_from_this_machine(server: Served) -> None:
    assert (await server.client.get(PROJECTS)).status_code == 200
    refused = await server.client.get(PROJECTS, headers={"origin": "http://evil.example"})
    assert refused.status_code == 403
