"""Streams that are dropped and resumed: the client's view, and every byte of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from tests.conformance import check_response
from tests.e2e.upstream import Upstream, own
from tests.e2e.wire import DONE, check_whole, created, id_of, number_of, opened, replayed, text_of
from tests.fakes.script import words


async def test_the_async_client_streams_and_reads_the_same(async_client: openai.AsyncOpenAI) -> None:
    text = ""
    async for event in await async_client.responses.create(
        model=own("deltas=60&interval_ms=2"), input="x", stream=True
    ):
        if event.type == "response.output_text.delta":
            text += event.delta
        elif event.type == "response.completed":
            assert (await async_client.responses.retrieve(event.response.id)) == event.response
    assert text == "".join(words(60))


async def test_the_async_helper_and_polling(async_client: openai.AsyncOpenAI) -> None:
    async with async_client.responses.stream(model=own("deltas=20"), input="x", background=True) as stream:
        final = await stream.get_final_response()
    assert final.output_text == "".join(words(20))
    assert final.background
    stored = await async_client.responses.retrieve(final.id)
    assert (stored.status, stored.output_text, stored.usage) == ("completed", final.output_text, final.usage)


async def test_many_at_once_each_get_their_own_words(async_client: openai.AsyncOpenAI) -> None:
    async def ask(n: int) -> tuple[str, str]:
        said = " ".join(f"answer{n}word{k}" for k in range(30))
        response = await async_client.responses.create(model="fake?echo=1&interval_ms=2", input=said)
        return response.output_text, said

    for heard, said in await asyncio.gather(*(ask(n) for n in range(12))):
        assert heard == said


@pytest.mark.parametrize("background", [True, False])
async def test_a_dropped_stream_resumes_without_gap_or_repeat(
    http: httpx.AsyncClient, background: bool
) -> None:
    """Dropped three times at odd places, and put together again byte for byte."""
    body = {
        "model": own("deltas=80&interval_ms=20&reasoning=3"),
        "input": "x",
        "stream": True,
        "background": background,
    }
    heard: list[bytes] = []
    async with opened(http, "POST", "/v1/responses", json=body) as payloads:
        async for payload in payloads:
            heard.append(payload)
            if len(heard) == 9:
                break
    response_id = id_of(heard[0])
    for upto in (10, 33):
        params = {"stream": "true", "starting_after": str(number_of(heard[-1]))}
        async with opened(http, "GET", f"/v1/responses/{response_id}", params=params) as payloads:
            async for payload in payloads:
                heard.append(payload)
                if len(heard) == upto:
                    break
    heard += await replayed(http, response_id, number_of(heard[-1]))
    final = check_whole(heard)
    assert final["status"] == "completed"
    assert text_of(heard) == "".join(words(80))
    assert await replayed(http, response_id) == heard
    shown = (await http.get(f"/v1/responses/{response_id}")).content
    assert json.loads(shown) == final
    assert shown in heard[-2]
    check_response(shown)


async def test_every_place_to_resume_from_continues_there(http: httpx.AsyncClient) -> None:
    heard = await created(http, {"model": own("deltas=6"), "input": "x"})
    response_id = id_of(heard[0])
    for after in range(len(heard) - 1):
        assert await replayed(http, response_id, after) == heard[after + 1 :]
    assert await replayed(http, response_id, len(heard) + 100) == [DONE]


async def test_followers_who_join_in_the_middle_see_the_same_bytes(http: httpx.AsyncClient) -> None:
    body = {"model": own("deltas=60&interval_ms=20"), "input": "x", "stream": True}
    async with opened(http, "POST", "/v1/responses", json=body) as payloads:
        heard = [await anext(payloads)]
        while len(heard) < 15:
            heard.append(await anext(payloads))
        joined = asyncio.gather(*(replayed(http, id_of(heard[0])) for _ in range(5)))
        heard += [payload async for payload in payloads]
    check_whole(heard)
    assert await joined == [heard] * 5


async def test_what_is_cancelled_elsewhere_ends_its_stream(http: httpx.AsyncClient) -> None:
    body = {"model": own("deltas=3000&interval_ms=20"), "input": "x", "stream": True}
    async with opened(http, "POST", "/v1/responses", json=body) as payloads:
        heard = [await anext(payloads)]
        while b"output_text.delta" not in heard[-1]:
            heard.append(await anext(payloads))
        cancelled = await http.post(f"/v1/responses/{id_of(heard[0])}/cancel")
        heard += [payload async for payload in payloads]
    final = check_whole(heard)
    assert json.loads(heard[-2])["type"] == "response.incomplete"
    assert final["status"] == "cancelled"
    assert [item["status"] for item in final["output"]] == ["incomplete"]
    assert cancelled.json() == final


async def test_a_queued_response_can_be_cancelled(http: httpx.AsyncClient) -> None:
    body = {"model": own("delay_ms=1000"), "input": "x", "background": True}
    response = (await http.post("/v1/responses", json=body)).json()
    cancelled = (await http.post(f"/v1/responses/{response['id']}/cancel")).json()
    assert (cancelled["status"], cancelled["output"]) == ("cancelled", [])
    check_whole(await replayed(http, response["id"]))


@pytest.mark.parametrize(
    "body",
    [
        {"model": "fake?deltas=9&reasoning=4", "reasoning": {"effort": "low", "summary": "auto"}},
        {
            "model": "fake?tools=2&interleave=1",
            "tools": [{"type": "function", "name": "f", "parameters": {}}],
        },
        {"model": "fake?refusal=1&deltas=3"},
        {"model": "fake?deltas=50", "max_output_tokens": 16},
        {"model": "fake?deltas=0"},
        {"model": "fake?status=401"},
        {"model": "fake?deltas=9&finish=content_filter"},
        {"model": "other-wire"},
        {"model": "simulated?deltas=20&reasoning=2", "metadata": {"a": "b"}, "user": "u", "temperature": 1},
    ],
    ids=lambda body: body["model"],
)
async def test_all_events_are_those_of_both_specifications(
    http: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    heard = await created(http, {"input": "x", **body})
    final = check_whole(heard)
    assert await replayed(http, final["id"]) == heard
    shown = (await http.get(f"/v1/responses/{final['id']}")).content
    assert json.loads(shown) == final
    check_response(shown)


async def test_a_whole_answer_is_the_last_snapshot_of_its_stream(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/responses", json={"model": own("deltas=12"), "input": "x"})
    response = answer.json()
    heard = await replayed(http, response["id"])
    check_whole(heard)
    assert answer.content in heard[-2]
    assert (await http.get(f"/v1/responses/{response['id']}")).content == answer.content


async def test_an_unstored_stream_is_whole_and_then_gone(http: httpx.AsyncClient, upstream: Upstream) -> None:
    model = own("deltas=12")
    heard = await created(http, {"model": model, "input": "x", "store": False})
    final = check_whole(heard)
    assert text_of(heard) == "".join(words(12))
    assert (await http.get(f"/v1/responses/{final['id']}")).status_code == 404
    assert upstream.count(model) == 1
