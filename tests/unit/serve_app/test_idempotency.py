"""Requests with an `Idempotency-Key`, over real actors and two replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from actors.client import RuntimeClient
from actors.orders import AggregateOrder, RuntimeUnavailable
from eventstore.errors import ClaimTaken
from runtime.catalog import Catalog
from serve_app.asgi import Api
from serve_app.limits import Limits
from tests.local_cluster import LocalSupervisor
from tests.patience import PATIENCE_S
from tests.unit.serve_app.keyed import keyed
from tests.unit.serve_app.served import LOOPBACK, SECRET, Served, at_once, served

STALLED = "simulated?stall_after=0"


async def ask(server: Served | httpx.AsyncClient, key: str | None = "k", **body: Any) -> httpx.Response:
    """A request with that key."""
    client = server.client if isinstance(server, Served) else server
    headers = {} if key is None else {"idempotency-key": key}
    return await client.post("/v1/responses", json={"model": "simulated", **body}, headers=headers)


async def made(server: Served) -> list[str]:
    """The responses that there are."""
    return [entry["id"] for entry in (await server.client.get("/v1/responses?limit=100")).json()["data"]]


def refused(answer: httpx.Response, code: str, retry: bool) -> dict[str, Any]:
    """The error of a 409 that tells a client whether to ask again."""
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (409, code, "Idempotency-Key")
    assert answer.headers.get("x-should-retry") == (None if retry else "false")
    assert ("retry-after" in answer.headers) is retry
    return error


@asynccontextmanager
async def another_replica(server: Served) -> AsyncIterator[httpx.AsyncClient]:
    """A second application on the same cluster, with a view of its hosts of its own."""
    cluster = server.cluster
    runtime = RuntimeClient(cluster.config, cluster.store, cluster.bus, LocalSupervisor(cluster.supervisor))
    await runtime.start()
    transport = httpx.ASGITransport(app=Api(runtime, Catalog(), secret=SECRET), client=LOOPBACK)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
    await runtime.aclose()


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_repeat_gets_the_same_bytes(server: Served, stream: bool, background: bool) -> None:
    """Whole or as events, also after a background response went on, and without a second response."""
    first = await ask(server, input="Hello", stream=stream, background=background)
    assert first.status_code == 200
    assert "idempotent-replayed" not in first.headers
    (response_id,) = await made(server)
    for _ in range(2):
        again = await ask(server, input="Hello", stream=stream, background=background)
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["content-type"] == first.headers["content-type"]
        await server.ended(response_id)
    assert await made(server) == [response_id]


async def test_a_failed_answer_is_an_answer(server: Served) -> None:
    server.cluster.factory.sleep = at_once
    first = await ask(server, model="simulated?fail=server_error")
    assert first.json()["status"] == "failed"
    again = await ask(server, model="simulated?fail=server_error")
    assert (again.status_code, again.content) == (200, first.content)


@pytest.mark.parametrize("other", ['"k"', " k "], ids=["quoted", "spaced"])
async def test_raw_and_quoted_keys_are_equal(server: Served, other: str) -> None:
    first = await ask(server, "k")
    assert (await ask(server, other)).content == first.content


async def test_escapes_of_a_quoted_key_are_read(server: Served) -> None:
    first = await ask(server, 'a"b\\c')
    assert (await ask(server, '"a\\"b\\\\c"')).content == first.content


@pytest.mark.parametrize("key", ["", '""', '"k', '"k"x', '"a\\b"', "k" * 256, "k\tk", "k\xe9"])
async def test_what_is_no_key_is_refused(server: Served, key: str) -> None:
    answer = await server.client.post(
        "/v1/responses", json={"model": "simulated"}, headers=[(b"idempotency-key", key.encode("latin-1"))]
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", "Idempotency-Key")
    assert await made(server) == []


async def test_two_keys_in_one_request_are_refused(server: Served) -> None:
    headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
    answer = await server.client.post("/v1/responses", json={"model": "simulated"}, headers=headers)
    assert answer.status_code == 400


async def test_the_form_of_the_json_makes_no_difference_but_its_meaning_does(server: Served) -> None:
    headers = {"idempotency-key": "k"}
    texts = [b'{"model":"simulated","input":"a"}', b'{ "input": "\\u0061",\n "model": "simulated" }']
    answers = [await server.client.post("/v1/responses", content=each, headers=headers) for each in texts]
    assert answers[0].content == answers[1].content
    for changed in ({"input": "b"}, {"input": "a", "stream": True}, {"input": "a", "unknown": 1}):
        refused(await ask(server, **changed), "idempotency_key_conflict", retry=False)
    assert len(await made(server)) == 1


async def test_a_request_that_still_runs_is_named(server: Served) -> None:
    waiting = asyncio.create_task(ask(server, model=STALLED))
    async with asyncio.timeout(PATIENCE_S):
        while not (running := await made(server)):  # noqa: ASYNC110  (no event tells: the parts are real)
            await asyncio.sleep(0.01)
    again = await ask(server, model=STALLED)
    error = refused(again, "idempotency_in_progress", retry=True)
    assert error["response_id"] == running[0]
    await server.client.post(f"/v1/responses/{running[0]}/cancel")
    first = await waiting
    assert (await ask(server, model=STALLED)).content == first.content


async def test_who_lost_the_answer_to_a_background_request_gets_it_while_it_runs(server: Served) -> None:
    first = await ask(server, model=STALLED, background=True)
    again = await ask(server, model=STALLED, background=True)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.json()["status"] == "queued"
    await server.client.post(f"/v1/responses/{first.json()['id']}/cancel")
    assert (await ask(server, model=STALLED, background=True)).content == first.content


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_to_be_stored_is_repeated_until_it_is_erased(server: Served, stream: bool) -> None:
    first = await ask(server, store=False, stream=stream)
    assert (await ask(server, store=False, stream=stream)).content == first.content
    (head,) = await server.cluster.store.heads(category="transient")
    await server.cluster.client.delete(head.stream, "store:false")
    refused(await ask(server, store=False, stream=stream), "idempotency_response_erased", retry=False)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_whose_response_was_erased_says_so(server: Served, stream: bool) -> None:
    await ask(server, stream=stream)
    (response_id,) = await made(server)
    await server.client.delete(f"/v1/responses/{response_id}")
    refused(await ask(server, stream=stream), "idempotency_response_erased", retry=False)


async def test_a_key_may_be_used_anew_after_its_time() -> None:
    async with served(limits=Limits(idempotency=0.0)) as server:
        assert (await ask(server)).json()["id"] != (await ask(server, input="other")).json()["id"]


async def test_what_was_refused_leaves_its_key_free(server: Served) -> None:
    assert (await ask(server, temperature=9)).status_code == 422
    unknown = "resp_" + "0" * 32
    assert (await ask(server, previous_response_id=unknown)).status_code == 400
    assert (await ask(server)).status_code == 200


async def test_a_repeat_is_answered_though_its_request_would_be_refused_by_now(server: Served) -> None:
    """What it continued is erased, and the models are others."""
    parent = (await ask(server, None)).json()["id"]
    first = await ask(server, previous_response_id=parent, input="x")
    await server.client.delete(f"/v1/responses/{parent}")
    assert (await ask(server, previous_response_id=parent, input="x")).content == first.content


@pytest.mark.parametrize("background", [False, True])
async def test_64_at_once_over_two_replicas_make_one_response(server: Served, background: bool) -> None:
    model = "simulated?deltas=5&interval_ms=10"
    async with another_replica(server) as replica:
        asked = [ask(replica if n % 2 else server, model=model, background=background) for n in range(64)]
        answers = await asyncio.gather(*asked)
        (response_id,) = await made(server)
        done = {answer.content for answer in answers if answer.status_code == 200}
        assert len(done) == 1
        for answer in answers:
            if answer.status_code != 200:
                assert refused(answer, "idempotency_in_progress", True)["response_id"] == response_id
        assert not background or all(answer.status_code == 200 for answer in answers)
        await server.ended(response_id)
        assert {(await ask(replica, model=model, background=background)).content} == done


async def test_a_key_is_not_written_down_with_what_it_was_used_for(server: Served) -> None:
    """The claim holds a keyed digest, never a word of the request."""
    await ask(server, input="a secret word")
    claim = await server.cluster.store.claim("default:idempotency", "k")
    assert claim is not None
    assert len(claim.fingerprint) == 32


async def test_projects_do_not_share_their_keys() -> None:
    """The same key and the same request: two responses, and nobody learns of the other's."""
    async with keyed() as door:
        made = []
        for tenant in (door.ours, door.theirs):
            headers = {**tenant.headers, "idempotency-key": "k"}
            answer = await door.server.client.post(
                "/v1/responses", json={"model": "simulated", "input": "Hi"}, headers=headers
            )
            assert answer.status_code == 200
            assert "idempotent-replayed" not in answer.headers
            made.append(answer.json()["id"])
        assert made[0] != made[1]


# -- Items of conversations --------------------------------------------------------------------------------


async def begun(server: Served) -> str:
    """The path of the items of a new conversation."""
    return f"/v1/conversations/{(await server.client.post('/v1/conversations')).json()['id']}/items"


async def add(client: httpx.AsyncClient, path: str, text: str = "Hello", key: str = "k") -> httpx.Response:
    """Add a message under a key."""
    items = [{"role": "user", "content": text}]
    return await client.post(path, json={"items": items}, headers={"idempotency-key": key})


async def told(server: Served, path: str) -> list[str]:
    """The texts that a conversation holds."""
    listed = (await server.client.get(f"{path}?order=asc")).json()["data"]
    return [item["content"][0]["text"] for item in listed]


async def test_items_are_added_once_however_often_they_are_sent(server: Served) -> None:
    """Over two replicas, and while a response runs in the conversation."""
    path = await begun(server)
    async with another_replica(server) as replica:
        answers = await asyncio.gather(*(add((server.client, replica)[n % 2], path) for n in range(16)))
        assert {(one.status_code, one.content) for one in answers} == {(200, answers[0].content)}
        assert await told(server, path) == ["Hello"]
        conversation = path.split("/")[3]
        asked = {"conversation": conversation, "background": True, "model": STALLED}
        assert (await server.create(**asked)).status_code == 200
        again = await add(replica, path)
        assert (again.status_code, again.content) == (200, answers[0].content)
        assert again.headers["idempotent-replayed"] == "true"
        assert (await add(replica, path, key="other")).json()["error"]["code"] == "conversation_locked"


async def test_items_whose_answer_was_lost_are_added_once(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await begun(server)
    change = server.cluster.client.change

    async def lost(order: AggregateOrder) -> None:
        await change(order)
        raise RuntimeUnavailable("its host has not answered")

    with monkeypatch.context() as patched:
        patched.setattr(server.cluster.client, "change", lost)
        answer = await add(server.client, path)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "x-should-retry" not in answer.headers, "a client may send them again by itself"
    assert (await add(server.client, path)).status_code == 200
    assert await told(server, path) == ["Hello"]


async def test_who_loses_the_race_for_a_key_hears_that_it_is_a_repeat(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await begun(server)
    change = server.cluster.client.change

    async def late(order: AggregateOrder) -> None:
        await change(order)
        assert order.claim is not None
        claim = order.claim
        raise ClaimTaken(claim.scope, claim.key, claim.fingerprint, claim.stream)

    with monkeypatch.context() as patched:
        patched.setattr(server.cluster.client, "change", late)
        answer = await add(server.client, path)
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (200, "true")


async def test_a_key_for_items_is_its_conversations_and_for_one_request(server: Served) -> None:
    path, other = await begun(server), await begun(server)
    first = await add(server.client, path)
    refused(await add(server.client, path, "Goodbye"), "idempotency_key_conflict", retry=False)
    at_once = await asyncio.gather(*(add(server.client, other, text, "both") for text in ("one", "two")))
    assert sorted(answer.status_code for answer in at_once) == [200, 409]
    assert (await add(server.client, other)).json() != first.json()
    assert (await add(server.client, path, key="l")).json() != first.json()
    assert (await told(server, path), await told(server, other)) == (["Hello"] * 2, ["one", "Hello"])
    assert (await ask(server, input="Hello")).status_code == 200, "it is free for responses"
