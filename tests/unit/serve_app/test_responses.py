"""The endpoints under /v1/responses, over real actors."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from eventstore.memory import MemoryEventStore
from serve_app.limits import Limits
from tests.conformance import check_response
from tests.unit.serve_app.served import Connection, Served, events_of, served

UNKNOWN = "resp_" + "0" * 32
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


async def test_a_response_is_answered_and_stays(server: Served) -> None:
    """POST waits for the end; GET gives the same bytes from then on."""
    created = await server.create(input="Hello", instructions="Be kind.", metadata={"a": [1]})
    assert created.status_code == 200
    check_response(created.content)
    body = created.json()
    assert body["status"] == "completed"
    assert body["output"][0]["content"][0]["text"] == "This answer is simulated. You wrote: Hello"
    assert (body["instructions"], body["metadata"]) == ("Be kind.", {"a": [1]})
    shown = await server.client.get(f"/v1/responses/{body['id']}")
    assert shown.content == created.content


async def test_a_background_response_is_shown_at_once_and_ends_by_itself(server: Served) -> None:
    created = await server.create(model="simulated?deltas=5&interval_ms=20", input="Hi", background=True)
    check_response(created.content)
    assert created.json()["status"] in ("queued", "in_progress")
    running = await server.client.get(f"/v1/responses/{created.json()['id']}")
    check_response(running.content)
    ended = await server.ended(created.json()["id"])
    assert (ended["status"], ended["background"]) == ("completed", True)


async def test_a_chain_of_responses_is_one_conversation(server: Served) -> None:
    first = (await server.create(input="One")).json()
    second = await server.create(previous_response_id=first["id"])
    assert second.status_code == 200
    assert second.json()["previous_response_id"] == first["id"]
    assert second.json()["usage"]["input_tokens"] > first["usage"]["input_tokens"]


async def test_a_function_call_goes_round(server: Served) -> None:
    asked = (await server.create(input="Look!", tools=[TOOL])).json()
    (call,) = [item for item in asked["output"] if item["type"] == "function_call"]
    unanswered = await server.create(previous_response_id=asked["id"], input="And?")
    assert unanswered.status_code == 400
    assert "No tool output found" in unanswered.json()["error"]["message"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "a tree"}
    told = await server.create(previous_response_id=asked["id"], input=[output], tools=[TOOL])
    assert told.json()["status"] == "completed"
    assert told.json()["output"][-1]["type"] == "message"


async def test_an_item_can_be_referred_to(server: Served) -> None:
    first = (await server.create(input="One")).json()
    item = first["output"][0]["id"]
    again = await server.create(
        input=[{"type": "item_reference", "id": item}, {"role": "user", "content": "?"}]
    )
    assert again.status_code == 200
    missing = await server.create(input=[{"type": "item_reference", "id": "msg_" + "0" * 38}])
    assert missing.status_code == 400
    assert "not found" in missing.json()["error"]["message"]


@pytest.mark.parametrize(
    ("parent", "code"), [(UNKNOWN, "previous_response_not_found"), ("../x", "previous_response_not_found")]
)
async def test_an_unknown_parent_is_refused(server: Served, parent: str, code: str) -> None:
    refused = await server.create(input="x", previous_response_id=parent)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, code, "previous_response_id")


async def test_a_running_parent_is_refused(server: Served) -> None:
    running = (await server.create(model="simulated?stall_after=0", background=True)).json()
    refused = await server.create(input="x", previous_response_id=running["id"])
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "previous_response_in_progress"
    await server.client.post(f"/v1/responses/{running['id']}/cancel")


async def test_cancel_ends_a_response_once(server: Served) -> None:
    """Again, or after its end, nothing changes."""
    running = (await server.create(model="simulated?stall_after=0", background=True)).json()
    path = f"/v1/responses/{running['id']}"
    cancelled = await server.client.post(f"{path}/cancel", json={})
    check_response(cancelled.content)
    assert cancelled.json()["status"] == "cancelled"
    assert (await server.client.post(f"{path}/cancel/")).content == cancelled.content
    assert (await server.client.get(path)).content == cancelled.content
    done = (await server.create(input="x")).json()
    still = await server.client.post(f"/v1/responses/{done['id']}/cancel")
    assert still.json()["status"] == "completed"


@pytest.mark.parametrize("running", [True, False])
async def test_a_deleted_response_is_gone_everywhere(server: Served, running: bool) -> None:
    model = "simulated?stall_after=0" if running else "simulated"
    response_id = (await server.create(model=model, input="x", background=running)).json()["id"]
    path = f"/v1/responses/{response_id}"
    deleted = await server.client.delete(path)
    assert deleted.json() == {"id": response_id, "object": "response.deleted", "deleted": True}
    for method, where in (
        ("GET", path),
        ("GET", f"{path}?stream=true"),
        ("GET", f"{path}/input_items"),
        ("POST", f"{path}/cancel"),
        ("DELETE", path),
    ):
        assert (await server.client.request(method, where)).status_code == 404
    listed = (await server.client.get("/v1/responses")).json()["data"]
    assert response_id not in [one["id"] for one in listed]
    continued = await server.create(input="x", previous_response_id=response_id)
    assert continued.json()["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize(
    "response_id", [UNKNOWN, "resp_1", "x", "resp_" + "Z" * 32, "a" * 5000, "%00", "*", "resp_%3E", "é"]
)
@pytest.mark.parametrize(
    ("method", "end"),
    [("GET", ""), ("GET", "?stream=true"), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")],
)
async def test_what_is_not_there_is_not_found(
    server: Served, response_id: str, method: str, end: str
) -> None:
    answer = await server.client.request(method, f"/v1/responses/{response_id}{end}")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["message"].endswith("not found.")
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", None, "id")


async def test_another_projects_response_is_not_there(server: Served) -> None:
    """It cannot be told from one that never was: the same answer but for the id."""
    foreign = (await server.create(input="x")).json()["id"]
    stream = server.cluster.store._streams[foreign]
    stream.head = type(stream.head)(
        **{name: getattr(stream.head, name) for name in stream.head.__slots__} | {"tenant": "other"}
    )
    for method, end in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        answers = [
            await server.client.request(method, f"/v1/responses/{one}{end}") for one in (foreign, UNKNOWN)
        ]
        assert answers[0].text.replace(foreign, UNKNOWN) == answers[1].text
    refused = await server.create(previous_response_id=foreign)
    assert refused.json()["error"]["code"] == "previous_response_not_found"
    assert (await server.client.get(f"/v1/responses?after={foreign}")).status_code == 404
    assert (await server.client.get("/v1/responses")).json()["data"] == []


# -- Lists -------------------------------------------------------------------------------------------------


async def test_input_items_are_listed_newest_first_page_by_page(server: Served) -> None:
    items = [{"role": "user", "content": f"{number}"} for number in range(5)]
    response_id = (await server.create(input=items)).json()["id"]
    path = f"/v1/responses/{response_id}/input_items"

    def texts(page: dict[str, Any]) -> list[str]:
        return [item["content"][0]["text"] for item in page["data"]]

    page = (await server.client.get(path)).json()
    assert (page["object"], page["has_more"], texts(page)) == ("list", False, ["4", "3", "2", "1", "0"])
    assert all(item["id"] and item["status"] == "completed" for item in page["data"])
    assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
    first = (await server.client.get(f"{path}?order=asc&limit=2")).json()
    assert (texts(first), first["has_more"]) == (["0", "1"], True)
    rest = (await server.client.get(f"{path}?order=asc&limit=3&after={first['last_id']}")).json()
    assert (texts(rest), rest["has_more"]) == (["2", "3", "4"], False)
    end = (await server.client.get(f"{path}?order=asc&after={rest['last_id']}")).json()
    assert (end["data"], end["first_id"], end["last_id"]) == ([], None, None)


async def test_responses_are_listed_newest_first_page_by_page(server: Served) -> None:
    ids = [(await server.create(input=f"{number}")).json()["id"] for number in range(3)]
    page = (await server.client.get("/v1/responses?limit=2")).json()
    assert [one["id"] for one in page["data"]] == [ids[2], ids[1]]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[2], ids[1], True)
    rest = (await server.client.get(f"/v1/responses?limit=2&after={ids[1]}")).json()
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    oldest = (await server.client.get("/v1/responses?order=asc&limit=1")).json()
    assert oldest["data"][0]["id"] == ids[0]
    assert (await server.client.get("/v1/responses?status=failed")).json()["data"] == []


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", "limit=-1", "limit=1e3", "limit=", "order=up", "order=", "after=no"],
)
async def test_a_page_that_makes_no_sense_is_refused(server: Served, query: str) -> None:
    response_id = (await server.create(input="x")).json()["id"]
    answer = await server.client.get(f"/v1/responses/{response_id}/input_items?{query}")
    name, _ = query.split("=")
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (404 if name == "after" else 400, name)
    assert name == "after" or error["message"].endswith("or left out.")


# -- The rest of HTTP --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_url"),
        ("GET", "/v1", 404, "unknown_url"),
        ("GET", "/v2/responses", 404, "unknown_url"),
        ("GET", f"/v1/responses/{UNKNOWN}/events", 404, "unknown_url"),
        ("PUT", "/v1/responses", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/responses", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("GET", f"/v1/responses/{UNKNOWN}/cancel", 405, "method_not_allowed"),
    ],
)
async def test_unknown_places_and_methods_have_the_errors_shape(
    server: Served, method: str, path: str, status: int, code: str
) -> None:
    answer = await server.client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-request-id"]
    if status == 405:
        assert answer.headers["allow"]


async def test_models_are_listed_and_shown(server: Served) -> None:
    listed = (await server.client.get("/v1/models/")).json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["object"], type(model["created"])) == ("simulated", "model", int)
    assert (await server.client.get("/v1/models/simulated")).json() == model
    assert (await server.client.get("/v1/models/simulated%3Fdeltas=2")).status_code == 200
    missing = await server.client.get("/v1/models/org%2Fname")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("model", ["nothing", "simulated?deltas=x", "../x"])
async def test_an_unknown_model_is_a_404_that_names_the_others(server: Served, model: str) -> None:
    refused = await server.create(model=model)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


async def test_health_and_readiness(server: Served) -> None:
    assert (await server.client.get("/healthz")).json() == {"status": "ok"}
    assert (await server.client.get("/readyz")).status_code == 200
    server.cluster.store.available = False
    unready = await server.client.get("/readyz")
    assert unready.status_code == 503
    assert unready.json()["problems"]


async def test_a_store_that_is_away_is_a_503_and_comes_back(server: Served) -> None:
    response_id = (await server.create(input="x")).json()["id"]
    server.cluster.store.available = False
    for answer in (
        await server.client.get(f"/v1/responses/{response_id}"),
        await server.client.get("/v1/responses"),
        await server.client.delete(f"/v1/responses/{response_id}"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert answer.headers["retry-after"] == "1"
    server.cluster.store.available = True
    assert (await server.client.get(f"/v1/responses/{response_id}")).status_code == 200


async def test_the_log_tells_of_every_failure_under_its_requests_id(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    server.cluster.store.available = False
    answer = await server.create(input="x")
    server.cluster.store.available = True
    assert answer.status_code == 503
    line = next(line for line in caplog.messages if answer.headers["x-request-id"] in line)
    assert "was answered 503" in line


async def test_an_unexpected_error_is_a_500_that_tells_nothing_but_its_id(
    server: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: MemoryEventStore, stream: str) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(MemoryEventStore, "head", broken)
    answer = await server.client.get(f"/v1/responses/{UNKNOWN}", headers={"x-request-id": "mine-1"})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "mine-1"
    assert "mine-1" in caplog.text
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""]
)
async def test_the_content_type_of_a_body_does_not_matter(server: Served, content_type: str) -> None:
    body = b'{"model": "simulated", "input": "x"}'
    answer = await server.client.post("/v1/responses", content=body, headers={"content-type": content_type})
    assert answer.status_code == 200


async def test_a_dialect_is_chosen_by_header(server: Served) -> None:
    body = {"model": "simulated?reasoning=3", "input": "x", "stream": True}
    names = {}
    for dialect in ("openai", "open-responses"):
        answer = await server.client.post("/v1/responses", json=body, headers={"x-rayspond-dialect": dialect})
        names[dialect] = {event["type"] for event in events_of(answer.content)}
    assert "response.reasoning_text.delta" in names["openai"]
    assert "response.reasoning.delta" in names["open-responses"]
    refused = await server.client.post(
        "/v1/responses", json=body, headers={"x-rayspond-dialect": "esperanto"}
    )
    assert refused.status_code == 400


# -- Bodies as they arrive ---------------------------------------------------------------------------------


async def test_a_body_that_is_too_long_is_a_413_before_it_is_read() -> None:
    """By its announced length, or as soon as what arrived is too long."""
    async with served(limits=Limits(body=1000)) as server:
        announced = Connection(
            server.api, "POST", "/v1/responses", b"", headers={"content-length": str(300 * 2**20)}
        )
        counted = Connection(server.api, "POST", "/v1/responses", b" " * 1001)
        for connection in (announced, counted):
            await connection.done()
            assert connection.status == 413
            assert b"1,000 bytes" in connection.body
        assert not server.cluster.store._streams, "nothing was written"


async def test_a_body_that_never_ends_is_a_408() -> None:
    async with served(limits=Limits(body_seconds=0.05)) as server:
        connection = Connection(server.api, "POST", "/v1/responses")
        connection.incoming.get_nowait()
        connection.incoming.put_nowait({"type": "http.request", "body": b"{", "more_body": True})
        await connection.done()
        assert connection.status == 408


async def test_a_client_that_leaves_while_sending_leaves_nothing(server: Served) -> None:
    connection = Connection(server.api, "POST", "/v1/responses")
    connection.incoming.get_nowait()
    connection.incoming.put_nowait({"type": "http.request", "body": b"{", "more_body": True})
    connection.leave()
    await connection.done()
    assert connection.started is None
    assert not server.cluster.store._streams


async def test_a_compressed_body_is_a_415(server: Served) -> None:
    connection = Connection(server.api, "POST", "/v1/responses", b"x", headers={"content-encoding": "gzip"})
    assert (await connection.done()).status == 415


async def test_a_body_in_many_pieces_is_one_body(server: Served) -> None:
    connection = Connection(server.api, "POST", "/v1/responses")
    connection.incoming.get_nowait()
    body = orjson.dumps({"model": "simulated", "input": "é" * 100})
    for place in range(0, len(body), 7):
        piece = body[place : place + 7]
        connection.incoming.put_nowait({"type": "http.request", "body": piece, "more_body": True})
    connection.incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    await connection.done()
    assert connection.status == 200


async def test_many_at_once(server: Served) -> None:
    """More than there are slots: those that must wait do, or are told to come again."""
    answers = await asyncio.gather(*(server.create(input=f"{number}") for number in range(40)))
    for number, answer in enumerate(answers):
        assert answer.status_code in (200, 503)
        if answer.status_code == 200:
            assert answer.json()["output"][0]["content"][0]["text"].endswith(f" {number}")
        else:
            assert answer.json()["error"]["code"] == "server_is_overloaded"
            assert int(answer.headers["retry-after"]) >= 1
    assert any(answer.status_code == 200 for answer in answers)
