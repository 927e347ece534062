"""The endpoints under /v1/conversations, and responses in conversations, over real actors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from actors.orders import RuntimeUnavailable
from eventstore.errors import OutcomeUnknown
from tests.conformance import check_conversation_items, check_response
from tests.patience import PATIENCE_S
from tests.unit.serve_app.keyed import keyed
from tests.unit.serve_app.served import Connection, Served, events_of, served

UNKNOWN = "conv_" + "0" * 32
STALLED = "simulated?stall_after=0"
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


def says(text: str, role: str = "user") -> dict[str, Any]:
    """A message as clients send it."""
    return {"role": role, "content": text}


async def begun(server: Served, *texts: str, **body: Any) -> str:
    """The id of a conversation with these messages."""
    answer = await server.client.post("/v1/conversations", json={"items": [*map(says, texts)], **body})
    assert answer.status_code == 200
    return str(answer.json()["id"])


async def items(server: Served, id: str, query: str = "order=asc&limit=100") -> list[dict[str, Any]]:
    answer = await server.client.get(f"/v1/conversations/{id}/items?{query}")
    assert answer.status_code == 200
    check_conversation_items(answer.content)
    return list(answer.json()["data"])


def texts(listed: list[dict[str, Any]]) -> list[str]:
    return [part["text"] for item in listed for part in item.get("content", ())]


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


# -- Conversations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{}", b'{"items":[],"metadata":null}'])
async def test_a_conversation_can_begin_with_nothing(server: Served, body: bytes) -> None:
    answer = await server.client.post("/v1/conversations", content=body)
    shown = answer.json()
    assert shown == {
        "id": shown["id"],
        "object": "conversation",
        "created_at": shown["created_at"],
        "metadata": {},
    }
    assert (await server.client.get(f"/v1/conversations/{shown['id']}")).json() == shown


async def test_metadata_is_replaced_and_cleared(server: Served) -> None:
    path = f"/v1/conversations/{await begun(server, metadata={'topic': 'trees'})}"
    changed = await server.client.post(path, json={"metadata": {"topic": "rivers"}})
    assert changed.json()["metadata"] == {"topic": "rivers"}
    assert (await server.client.get(path)).json() == changed.json()
    assert (await server.client.post(path, json={"metadata": None})).json()["metadata"] == {}
    assert refused(await server.client.post(path, json={}), 422)["param"] == "metadata"


async def test_a_deleted_conversation_is_gone_everywhere_and_its_responses_stay(server: Served) -> None:
    id = await begun(server, "Hello")
    response = (await server.create(conversation=id)).json()
    item_id = (await items(server, id))[0]["id"]
    path = f"/v1/conversations/{id}"
    deleted = await server.client.delete(path)
    assert deleted.json() == {"id": id, "object": "conversation.deleted", "deleted": True}
    assert (await server.client.get(f"/v1/responses/{response['id']}")).json() == response
    await nobody_finds(server, id, item_id)


async def nobody_finds(
    server: Served, id: str, item_id: str, headers: Mapping[str, str] | None = None
) -> None:
    """Every way to it answers as for one that never was."""
    path, message = f"/v1/conversations/{id}", f"Conversation with id '{id}' not found."
    for method, where, body in (
        ("GET", path, None),
        ("POST", path, {"metadata": {}}),
        ("DELETE", path, None),
        ("GET", f"{path}/items", None),
        ("POST", f"{path}/items", {"items": [says("x")]}),
        ("GET", f"{path}/items/{item_id}", None),
        ("DELETE", f"{path}/items/{item_id}", None),
    ):
        error = refused(await server.client.request(method, where, json=body, headers=headers), 404)
        assert error == {"message": message, "type": "invalid_request_error", "param": "id", "code": None}
    for given in (id, {"id": id}):
        asked = {"model": "simulated", "input": "x", "conversation": given}
        error = refused(await server.client.post("/v1/responses", json=asked, headers=headers), 404)
        assert (error["message"], error["param"]) == (message, "conversation")


@pytest.mark.parametrize("id", [UNKNOWN, "conv_1", "resp_" + "0" * 32])
async def test_an_unknown_conversation_is_a_404(server: Served, id: str) -> None:
    await nobody_finds(server, id, "msg_1")


async def test_another_projects_conversation_is_not_there() -> None:
    """Neither is its item, in whatever way somebody refers to it."""
    async with keyed() as door:
        client, ours, theirs = door.server.client, door.ours.headers, door.theirs.headers
        begun = await client.post("/v1/conversations", json={"items": [says("Hello")]}, headers=theirs)
        id = begun.json()["id"]
        listed = await client.get(f"/v1/conversations/{id}/items", headers=theirs)
        item_id = listed.json()["first_id"]
        await nobody_finds(door.server, id, item_id, ours)
        own = (await client.post("/v1/conversations", json={}, headers=ours)).json()["id"]
        for where in ({}, {"conversation": own}):
            body = {"model": "simulated", "input": [{"type": "item_reference", "id": item_id}], **where}
            refused(await client.post("/v1/responses", json=body, headers=ours), 400)
        refused(await client.get(f"/v1/conversations/{own}/items/{item_id}", headers=ours), 404)
        assert (await client.get(f"/v1/conversations/{id}", headers=theirs)).status_code == 200


async def test_a_response_is_no_conversation(server: Served) -> None:
    await nobody_finds(server, (await server.create(input="x")).json()["id"], "msg_1")


# -- Items -------------------------------------------------------------------------------------------------


async def test_items_are_added_listed_shown_and_removed(server: Served) -> None:
    id = await begun(server, "One")
    path = f"/v1/conversations/{id}/items"
    given = [says("Two", "assistant"), {"type": "message", "id": "msg_mine", **says("Three")}]
    added = (await server.client.post(path, json={"items": given})).json()
    assert (added["object"], added["has_more"], len(added["data"])) == ("list", False, 2)
    assert [added["first_id"], added["last_id"]] == [item["id"] for item in added["data"]]
    assert added["data"][0]["content"] == [{"type": "output_text", "text": "Two", "annotations": []}]
    assert added["data"][1]["id"] != "msg_mine"
    listed = await items(server, id)
    assert texts(listed) == ["One", "Two", "Three"]
    assert listed[1:] == added["data"]
    assert texts(await items(server, id, "")) == ["Three", "Two", "One"]
    middle = f"{path}/{listed[1]['id']}"
    assert (await server.client.get(middle)).json() == listed[1]
    removed = await server.client.delete(middle)
    assert (removed.json()["id"], removed.json()["object"]) == (id, "conversation")
    assert texts(await items(server, id)) == ["One", "Three"]
    for method in ("GET", "DELETE"):
        error = refused(await server.client.request(method, middle), 404)
        assert error["message"] == f"Item with id '{listed[1]['id']}' not found."


async def test_every_type_of_item_is_kept_as_it_is_known_elsewhere(server: Served) -> None:
    parts = [
        {"type": "input_text", "text": "Look!"},
        {"type": "input_image", "image_url": "https://example.com/a.png"},
        {"type": "input_file", "file_data": "data:text/plain;base64,YQ==", "filename": "a.txt"},
    ]
    given: list[dict[str, Any]] = [
        {"role": "user", "content": parts},
        {"role": "developer", "content": "Be brief."},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": parts[:1]},
        {"type": "custom_tool_call", "call_id": "c2", "name": "say", "input": "hi"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "said"},
    ]
    id = await begun(server)
    added = await server.client.post(f"/v1/conversations/{id}/items", json={"items": given})
    check_conversation_items(added.content)
    listed = await items(server, id)
    assert [item["type"] for item in listed] == [item.get("type", "message") for item in given]
    assert (await server.create(input="And?", conversation=id)).status_code == 200


async def test_items_of_hosted_tools_are_left_out_and_named(server: Served) -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    for path in ("/v1/conversations", f"/v1/conversations/{await begun(server)}/items"):
        answer = await server.client.post(path, json={"items": [search, says("x")]})
        assert answer.headers["x-rayspond-warning"] == "not served here, left out: web_search_call"
        id = answer.json()["id"] if path.endswith("conversations") else path.split("/")[3]
        assert texts(await items(server, id)) == ["x"]


async def test_a_compaction_stands_for_what_is_before_it_and_its_words_stay_sealed(server: Served) -> None:
    """Also in another conversation that begins with it; what asked for it is no item."""
    id = await begun(server, "A long story. " * 100)
    trigger = {"type": "compaction_trigger"}
    made = (await server.create(input=[says("Sum up."), trigger], conversation=id)).json()
    listed = await items(server, id)
    assert [item["type"] for item in listed] == ["message", "message", "compaction"]
    assert listed[-1] == made["output"][0]
    after = (await server.create(input="And?", conversation=id)).json()
    assert after["usage"]["input_tokens"] < made["usage"]["input_tokens"]
    other = await server.client.post("/v1/conversations", json={"items": listed[-1:]})
    again = await server.client.post(
        f"/v1/conversations/{other.json()['id']}/items", json={"items": listed[-1:]}
    )
    check_conversation_items(again.content)
    for shown in (again.text, str(await items(server, other.json()["id"]))):
        assert "_upstream" not in shown
    assert (await server.create(input="And?", conversation=other.json()["id"])).status_code == 200


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_follow_each_other_by_last_id(server: Served, order: str) -> None:
    id = await begun(server, *map(str, range(7)))
    seen: list[str] = []
    after = ""
    for size in (3, 3, 1):
        query = f"order={order}&limit=3{after}"
        page = (await server.client.get(f"/v1/conversations/{id}/items?{query}")).json()
        assert (len(page["data"]), page["has_more"]) == (size, len(seen) + size < 7)
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        seen += texts(page["data"])
        after = f"&after={page['last_id']}"
    assert seen == sorted(map(str, range(7)), reverse=order == "desc")
    wrong = await server.client.get(f"/v1/conversations/{id}/items?after=msg_1")
    assert refused(wrong, 404)["param"] == "after"


@pytest.mark.parametrize("error", [OutcomeUnknown("cut"), RuntimeUnavailable("its host has not answered")])
async def test_items_that_may_have_been_added_are_not_sent_again_unasked(
    server: Served, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    id = await begun(server)

    async def lost(order: object) -> None:
        raise error

    monkeypatch.setattr(server.cluster.client, "change", lost)
    answer = await server.client.post(f"/v1/conversations/{id}/items", json={"items": [says("x")]})
    assert refused(answer, 503)["code"] == "store_unavailable"
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_who_deletes_while_paging_misses_nothing(server: Served, order: str) -> None:
    """The page goes on where the item stood, also when its neighbours are gone, and others came."""
    id = await begun(server, *map(str, range(8)))
    path = f"/v1/conversations/{id}/items"
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = (await server.client.get(path, params={"order": order, "limit": "3", **after})).json()
        seen += texts(page["data"])
        for item in page["data"]:
            assert (await server.client.delete(f"{path}/{item['id']}")).status_code == 200
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert seen == sorted(map(str, range(8)), reverse=order == "desc")
    await server.client.post(path, json={"items": [says("late")]})
    behind = (await server.client.get(path, params={"order": order, "after": page["last_id"]})).json()
    assert texts(behind["data"]) == (["late"] if order == "asc" else [])
    elsewhere = await server.client.get(
        f"/v1/conversations/{await begun(server)}/items", params={"after": page["last_id"]}
    )
    assert refused(elsewhere, 404)["param"] == "after"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"items": [says("x")] * 21}, 422, "items"),
        ({"items": [{"type": "message", "role": "user"}]}, 422, "items[0].content"),
        ({"items": [says("x"), {"type": "nonsense"}]}, 400, "items[1].type"),
        ({"items": [{"type": "item_reference", "id": "msg_1"}]}, 400, "items[0]"),
        ({"items": [{"type": "compaction_trigger"}]}, 400, "items[0]"),
        ({"items": "x"}, 422, "items"),
    ],
)
async def test_what_is_no_item_is_refused_by_its_place(
    server: Served, body: Any, status: int, param: str
) -> None:
    id = await begun(server)
    for path in ("/v1/conversations", f"/v1/conversations/{id}/items"):
        assert refused(await server.client.post(path, json=body), status)["param"] == param
    assert await items(server, id) == []
    assert (
        refused(await server.client.post(f"/v1/conversations/{id}/items", json={}), 422)["param"] == "items"
    )


async def test_metadata_has_its_bound(server: Served) -> None:
    error = refused(
        await server.client.post("/v1/conversations", json={"metadata": {"a": "x" * 17_000}}), 422
    )
    assert error["param"] == "metadata"


# -- Responses in it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_object", [False, True])
async def test_a_response_goes_on_with_it_and_adds_to_it(server: Served, as_object: bool) -> None:
    id = await begun(server, "I am Ada.")
    named = {"id": id} if as_object else id
    first = await server.create(input="Hello", conversation=named, instructions="Be kind.")
    check_response(first.content)
    assert first.json()["conversation"] == {"id": id}
    second = (await server.create(input="And?", conversation=named)).json()
    assert second["usage"]["input_tokens"] > first.json()["usage"]["input_tokens"]
    listed = await items(server, id)
    answers = ["This answer is simulated. You wrote: Hello", "This answer is simulated. You wrote: And?"]
    assert texts(listed) == ["I am Ada.", "Hello", answers[0], "And?", answers[1]]
    assert listed[2] == first.json()["output"][0]
    got = await server.client.get(f"/v1/responses/{second['id']}")
    assert got.json()["conversation"] == {"id": id}


async def test_without_input_it_goes_on_from_where_it_stands(server: Served) -> None:
    id = await begun(server, "Hello")
    assert (await server.create(conversation=id)).status_code == 200
    assert texts(await items(server, id)) == ["Hello", "This answer is simulated. You wrote: Hello"]


@pytest.mark.parametrize("kind", [{"stream": True}, {"background": True}, {"store": False}])
async def test_however_it_is_asked_for(server: Served, kind: dict[str, Any]) -> None:
    id = await begun(server)
    answer = await server.create(input="Hello", conversation=id, **kind)
    if "stream" in kind:
        assert all(
            event["response"]["conversation"] == {"id": id}
            for event in events_of(answer.content)
            if "response" in event
        )
    elif "background" in kind:
        await server.ended(answer.json()["id"])
    assert texts(await items(server, id)) == ["Hello", "This answer is simulated. You wrote: Hello"]


async def test_a_conversation_and_a_parent_exclude_each_other(server: Served) -> None:
    parent = (await server.create(input="x")).json()["id"]
    both = await server.create(input="x", conversation=await begun(server), previous_response_id=parent)
    error = refused(both, 400)
    assert (error["code"], error["param"]) == ("mutually_exclusive_parameters", "conversation")


@pytest.mark.parametrize("conversation", [1, [], {}, {"id": 1}])
async def test_what_names_no_conversation_is_a_422(server: Served, conversation: Any) -> None:
    error = refused(await server.create(input="x", conversation=conversation), 422)
    assert str(error["param"]).startswith("conversation")


async def test_one_response_at_a_time(server: Served) -> None:
    """Until it is over, its items stay as they are; then all is free again."""
    id = await begun(server, "One")
    path = f"/v1/conversations/{id}"
    item_id = (await items(server, id))[0]["id"]
    running = (await server.create(model=STALLED, conversation=id, background=True)).json()["id"]
    client = server.client
    for answer in (
        await server.create(input="x", conversation=id),
        await client.delete(path),
        await client.post(f"{path}/items", json={"items": [says("x")]}),
        await client.delete(f"{path}/items/{item_id}"),
    ):
        error = refused(answer, 400)
        assert error == {
            "message": "Another process is currently operating on this conversation. "
            "Please retry in a few seconds.",
            "type": "invalid_request_error",
            "param": "conversation",
            "code": "conversation_locked",
        }
    assert (await client.post(path, json={"metadata": {"a": 1}})).status_code == 200
    await client.post(f"/v1/responses/{running}/cancel")
    assert texts(await items(server, id)) == ["One"]
    assert (await server.create(input="x", conversation=id)).status_code == 200
    assert (await client.delete(path)).status_code == 200


async def test_a_function_call_goes_round(server: Served) -> None:
    id = await begun(server)
    asked = (await server.create(input="Look!", conversation=id, tools=[TOOL])).json()
    (call,) = [item for item in asked["output"] if item["type"] == "function_call"]
    error = refused(await server.create(input="And?", conversation=id), 400)
    assert "No tool output found" in error["message"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "a tree"}
    told = await server.create(input=[output], conversation=id, tools=[TOOL])
    assert told.json()["status"] == "completed"
    kinds = [item["type"] for item in await items(server, id)]
    assert kinds == ["message", "function_call", "function_call_output", "message"]


async def test_its_items_are_copies(server: Served) -> None:
    id = await begun(server)
    response = (await server.create(input="Hello", conversation=id)).json()["id"]
    await server.client.delete(f"/v1/responses/{response}")
    assert texts(await items(server, id)) == ["Hello", "This answer is simulated. You wrote: Hello"]


async def test_an_item_that_is_sent_back_can_be_told_from_the_first(server: Served) -> None:
    id = await begun(server, "Hello")
    sent = (await items(server, id))[0]
    await server.create(input=[sent, says("?")], conversation=id)
    ids = [item["id"] for item in await items(server, id)]
    assert len(set(ids)) == len(ids) == 4


async def test_a_repeated_request_is_told_of_its_own_response_not_of_the_lock(server: Served) -> None:
    id = await begun(server)
    headers = {"idempotency-key": "k"}
    body = {"model": STALLED, "conversation": id}
    waiting = asyncio.create_task(server.client.post("/v1/responses", json=body, headers=headers))
    async with asyncio.timeout(PATIENCE_S):
        while not (await server.client.get("/v1/responses")).json()["data"]:  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0.01)
    again = await server.client.post("/v1/responses", json=body, headers=headers)
    error = refused(again, 409)
    assert error["code"] == "idempotency_in_progress"
    await server.client.post(f"/v1/responses/{error['response_id']}/cancel")
    assert (await waiting).json()["status"] == "cancelled"


async def test_a_killed_host_leaves_no_lock() -> None:
    """The response ends on another host, and the conversation goes on."""
    async with served() as server:
        id = await begun(server, "Hello")
        body = (
            b'{"model":"simulated?deltas=40&interval_ms=20","stream":true,"conversation":"%b"}' % id.encode()
        )
        streaming = Connection(server.api, "POST", "/v1/responses", body)
        await streaming.until(b"output_text.delta")
        owner = next(head.owner for head in await server.cluster.store.heads(states=["in_progress"]))
        assert owner is not None
        server.cluster.factory.hosts[owner].kill()
        await streaming.done()
        final = events_of(streaming.body)[-1]["response"]
        assert final["status"] == "completed"
        assert texts(await items(server, id))[-1] == final["output"][0]["content"][0]["text"]
        assert (await server.create(input="And?", conversation=id)).status_code == 200
