"""Pages of responses: filtered, and bounded whatever the responses are like."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app import response_list
from tests.unit.serve_app.served import Served


async def listed(server: Served, **query: Any) -> dict[str, Any]:
    answer = await server.client.get("/v1/responses", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def made(server: Served, *models: str) -> list[str]:
    """Responses of these models, the newest first."""
    ids = [(await server.create(model=model, input="x")).json()["id"] for model in models]
    return ids[::-1]


async def walked(server: Served, **query: Any) -> list[str]:
    """The ids of all pages."""
    ids: list[str] = []
    page = await listed(server, **query)
    while True:
        ids += [response["id"] for response in page["data"]]
        if not page["has_more"]:
            return ids
        page = await listed(server, **query, after=page["last_id"])


async def test_those_of_one_model_page_by_page(server: Served) -> None:
    ids = await made(
        server, "simulated", "simulated?deltas=1", "simulated", "simulated?deltas=1", "simulated"
    )
    assert await walked(server, limit=2) == ids
    assert await walked(server, limit=2, model="simulated") == ids[::2]
    assert await walked(server, limit=1, model="simulated?deltas=1", order="asc") == ids[3:0:-2]
    assert await walked(server, model="unknown") == []


async def test_a_page_of_long_responses_ends_early(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_list, "PAGE_BYTES", 1)
    ids = await made(server, *["simulated"] * 3)
    page = await listed(server)
    assert [response["id"] for response in page["data"]] == ids[:1]
    assert await walked(server) == ids


async def test_a_search_among_many_goes_on_where_it_ended(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_list, "LOOKED_THROUGH_MAX", 2)
    ids = await made(server, "simulated?deltas=1", *["simulated"] * 5)
    page = await listed(server, model="simulated?deltas=1")
    assert (page["data"], page["has_more"], page["last_id"]) == ([], True, ids[1])
    assert await walked(server, model="simulated?deltas=1") == ids[5:]


async def test_a_list_goes_on_behind_what_was_erased_meanwhile(server: Served) -> None:
    ids = await made(server, *["simulated"] * 4)
    page = await listed(server, limit=2)
    for response in page["data"]:
        await server.client.delete(f"/v1/responses/{response['id']}")
    assert await walked(server, limit=2, after=page["last_id"]) == ids[2:]
    unknown = await server.client.get("/v1/responses", params={"after": "resp_" + "0" * 32})
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "after")
