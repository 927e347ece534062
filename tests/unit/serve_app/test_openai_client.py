"""The real client of OpenAI, over the real application."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import openai
import pytest
from pydantic import BaseModel

from tests.unit.serve_app.served import LOOPBACK, Served


@pytest.fixture
async def client(server: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = httpx2.ASGITransport(app=server.api, client=LOOPBACK)
    async with (
        httpx2.AsyncClient(transport=transport) as http,
        openai.AsyncOpenAI(api_key="sk-x", base_url="http://localhost/v1", http_client=http) as one,
    ):
        yield one


async def test_the_whole_life_of_a_response(client: openai.AsyncOpenAI) -> None:
    response = await client.responses.create(model="simulated", input="Hello")
    assert response.output_text == "This answer is simulated. You wrote: Hello"
    assert (await client.responses.retrieve(response.id)).output_text == response.output_text
    items = await client.responses.input_items.list(response.id)
    assert [item.type async for item in items] == ["message"]
    assert (await client.responses.cancel(response.id)).status == "completed"
    await client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError, match=f"Response with id '{response.id}' not found"):
        await client.responses.retrieve(response.id)


async def test_both_ways_to_stream(client: openai.AsyncOpenAI) -> None:
    text = ""
    stream = await client.responses.create(model="simulated", input="Hello", stream=True)
    async for event in stream:
        if event.type == "response.output_text.delta":
            text += event.delta
    assert text == "This answer is simulated. You wrote: Hello"
    async with client.responses.stream(model="simulated", input="Hello") as helper:
        final = await helper.get_final_response()
    assert final.output_text == text


async def test_a_stream_is_resumed(client: openai.AsyncOpenAI) -> None:
    stream = await client.responses.create(model="simulated", input="Hi", background=True, stream=True)
    first = [event async for event in stream]
    created = first[0]
    assert created.type == "response.created"
    resumed = await client.responses.retrieve(created.response.id, stream=True, starting_after=3)
    assert [event async for event in resumed] == first[4:]


async def test_structured_output_is_parsed(client: openai.AsyncOpenAI) -> None:
    class Weather(BaseModel):
        place: str
        degrees: int

    parsed = await client.responses.parse(model="simulated", input="How is it?", text_format=Weather)
    assert isinstance(parsed.output_parsed, Weather)


async def test_errors_are_the_clients_own(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as wrong:
        await client.responses.create(model="simulated", input="x", temperature=7)
    assert (wrong.value.param, wrong.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as missing:
        await client.responses.create(model="simulated", input="x", previous_response_id="resp_x")
    assert missing.value.code == "previous_response_not_found"
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.responses.create(model="nothing", input="x")
    assert unknown.value.code == "model_not_found"


async def test_a_failed_response_is_an_answer_and_an_error_in_a_stream(client: openai.AsyncOpenAI) -> None:
    failed = await client.responses.create(model="simulated?fail=upstream_auth", input="x")
    assert failed.status == "failed"
    assert failed.error is not None
    assert str(failed.error.code) == "upstream_auth"
    with pytest.raises(openai.APIError):
        async for _ in await client.responses.create(
            model="simulated?fail=upstream_auth", input="x", stream=True
        ):
            pass


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["simulated"]
    assert (await client.models.retrieve("simulated")).object == "model"
