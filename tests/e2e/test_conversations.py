"""Conversations with OpenAI's own client and with the session of its agents, on a running server."""

from __future__ import annotations

from typing import Any

import agents
import httpx
import openai
import psutil
import pytest

from tests.e2e.upstream import Upstream, own
from tests.fakes.script import words
from tests.launching import Instance

SLOW = "deltas=100&interval_ms=50&goes_on=1"


def says(text: str) -> Any:
    return {"role": "user", "content": text}


def texts(client: openai.OpenAI, conversation: str) -> list[str]:
    """What is said in it, the oldest first, over pages of two."""
    listed = client.conversations.items.list(conversation, order="asc", limit=2)
    return [part.text for item in listed if item.type == "message" for part in item.content]  # type: ignore[union-attr]  # all are texts


def locked(client: openai.OpenAI, conversation: str) -> bool:
    """Whether a response cannot begin in it."""
    try:
        client.responses.create(model=own("deltas=1"), input="x", conversation=conversation)
    except openai.BadRequestError as refused:
        return refused.code == "conversation_locked"
    return False


def test_the_life_of_a_conversation(client: openai.OpenAI) -> None:
    conversation = client.conversations.create(items=[says("One")], metadata={"topic": "trees"})
    id = conversation.id
    assert client.conversations.retrieve(id) == conversation
    assert client.conversations.update(id, metadata={"topic": "rivers"}).metadata == {"topic": "rivers"}
    added = client.conversations.items.create(id, items=[says("Two"), says("Three")])
    assert len(added.data) == 2
    assert added.last_id == added.data[-1].id
    assert texts(client, id) == ["One", "Two", "Three"]
    assert client.conversations.items.retrieve(added.first_id, conversation_id=id) == added.data[0]
    assert client.conversations.items.delete(added.first_id, conversation_id=id).id == id
    assert texts(client, id) == ["One", "Three"]
    assert client.conversations.delete(id).deleted
    with pytest.raises(openai.NotFoundError, match=id):
        client.conversations.retrieve(id)


def test_the_upstream_is_told_all_of_it(client: openai.OpenAI, upstream: Upstream) -> None:
    id = client.conversations.create(items=[says("I am Ada.")]).id
    first, second = own("deltas=5"), own("deltas=3")
    answer = client.responses.create(model=first, input="Hello", conversation=id)
    assert answer.conversation is not None
    assert answer.conversation.id == id
    with client.responses.stream(model=second, input="And?", conversation=id) as stream:
        final = stream.get_final_response()
    assert final.conversation == answer.conversation
    [asked] = upstream.calls(second)
    told = [message["content"] for message in asked["messages"]]
    assert told == ["I am Ada.", "Hello", answer.output_text, "And?"]
    assert texts(client, id) == [*told, final.output_text]


async def test_one_response_at_a_time_for_the_async_client(async_client: openai.AsyncOpenAI) -> None:
    id = (await async_client.conversations.create()).id
    stream = await async_client.responses.create(model=own(SLOW), input="x", conversation=id, stream=True)
    created = await anext(aiter(stream))
    assert created.type == "response.created"
    for change in (
        async_client.responses.create(model="fake", input="y", conversation=id),
        async_client.conversations.items.create(id, items=[says("y")]),
        async_client.conversations.delete(id),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await change
        assert (refused.value.code, refused.value.param) == ("conversation_locked", "conversation")
    await async_client.responses.cancel(created.response.id)
    answer = await async_client.responses.create(model=own("deltas=2"), input="z", conversation=id)
    items = [item async for item in async_client.conversations.items.list(id, order="asc")]
    assert [item.type for item in items] == ["message", "message"]
    assert answer.output[0].id == items[1].id


def test_a_killed_host_leaves_no_lock(client: openai.OpenAI, instance: Instance, upstream: Upstream) -> None:
    """Its response ends on another one, and is in the conversation once."""
    id, model = client.conversations.create().id, own(SLOW)
    with client.responses.create(model=model, input="x", conversation=id, stream=True) as stream:
        events = iter(stream)
        created = next(events)
        assert created.type == "response.created"
        while next(events).type != "response.output_text.delta":
            pass
        psutil.Process(host_of(instance, created.response.id)).kill()
        last = list(events)[-1]
    assert last.type == "response.completed"
    assert texts(client, id) == ["x", "".join(words(100))]
    assert not locked(client, id)


def host_of(instance: Instance, response_id: str) -> int:
    """The process that runs a response."""
    hosts = httpx.get(f"{instance.url}/hosts", timeout=10).json()["data"]
    return int(next(host["pid"] for host in hosts if response_id in str(host["responses"])))


# -- OpenAI's agents ---------------------------------------------------------------------------------------


@agents.function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It rains in {city}."


@pytest.fixture
def session(async_client: openai.AsyncOpenAI) -> agents.OpenAIConversationsSession:
    """A session whose memory is a conversation; nothing leaves this machine."""
    agents.set_tracing_disabled(True)
    return agents.OpenAIConversationsSession(openai_client=async_client)


def agent_of(client: openai.AsyncOpenAI, model: str, *tools: Any) -> agents.Agent[Any]:
    return agents.Agent(
        name="Clerk",
        instructions="Be brief.",
        model=agents.OpenAIResponsesModel(model=model, openai_client=client),
        tools=list(tools),
    )


async def test_a_session_of_agents_remembers(
    async_client: openai.AsyncOpenAI, session: agents.OpenAIConversationsSession, upstream: Upstream
) -> None:
    """Its tool loop, a second turn, a removed item, and the end of all of it."""
    working, talking = own("tools=1"), own("deltas=4")
    first = await agents.Runner.run(
        agent_of(async_client, working, get_weather), "How is Paris?", session=session
    )
    assert first.final_output
    kinds = [item.get("type") for item in await session.get_items()]
    assert kinds == ["message", "function_call", "function_call_output", "message"]
    second = await agents.Runner.run(agent_of(async_client, talking), "And now?", session=session)
    [asked] = upstream.calls(talking)
    roles = [message["role"] for message in asked["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert asked["messages"][3]["content"] == "It rains in Paris."
    popped = await session.pop_item()
    assert popped is not None
    assert second.final_output in str(popped)
    assert len(await session.get_items()) == 5
    id = session.session_id
    await session.clear_session()
    with pytest.raises(openai.NotFoundError):
        await async_client.conversations.retrieve(id)


async def test_agents_that_leave_their_memory_to_the_server(
    async_client: openai.AsyncOpenAI, upstream: Upstream
) -> None:
    """Each of their requests names the conversation and holds only what is new, streamed and not."""
    agents.set_tracing_disabled(True)
    id = (await async_client.conversations.create()).id
    working, talking = own("tools=1"), own("deltas=4")
    worker = agent_of(async_client, working, get_weather)
    streamed = agents.Runner.run_streamed(worker, "How is Paris?", conversation_id=id)
    kinds = [event.type async for event in streamed.stream_events()]
    assert "raw_response_event" in kinds
    await agents.Runner.run(agent_of(async_client, talking), "And now?", conversation_id=id)
    [asked] = upstream.calls(talking)
    roles = [message["role"] for message in asked["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    items = [item.type async for item in async_client.conversations.items.list(id, order="asc")]
    assert items == ["message", "function_call", "function_call_output", *["message"] * 3]


async def test_a_long_session_is_kept_in_batches(session: agents.OpenAIConversationsSession) -> None:
    said: list[Any] = [says(str(number)) for number in range(45)]
    await session.add_items(said)
    kept: list[Any] = await session.get_items()
    assert [item["content"][0]["text"] for item in kept] == [str(number) for number in range(45)]
    latest: list[Any] = await session.get_items(limit=3)
    assert [item["content"][0]["text"] for item in latest] == ["42", "43", "44"]
