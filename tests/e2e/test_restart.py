"""Everything is killed at once, and started again on the same data directory."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.conftest import SERVER_LIMIT_S, connect
from tests.e2e.log import findings
from tests.e2e.parts import kill_all
from tests.e2e.test_conversations import locked, says, texts
from tests.e2e.upstream import Upstream, own
from tests.e2e.wire import check_whole, id_of, opened, replayed, text_of
from tests.fakes.script import words
from tests.launching import Instance, until

DELTAS = 50
LONG = f"fake?deltas={DELTAS}&interval_ms=100&goes_on=1&key=restart"
TEXT = "".join(words(DELTAS))
SLOTS = 20
"""Of each of the two hosts: most of what is unfinished waits in the queue when everything is killed."""
WAITING = 10 if os.environ.get("RAYSPOND_ISOLATION") == "dedicated" else 100
"""Responses in the background that nobody follows; a Ray actor for each takes a second of a processor."""
ENDED_S = 180.0
SPOKEN = 200
"""Words of the answer that runs in a conversation: it takes longer than all that happens before the end."""


@pytest.fixture
def server(tmp_path: Path, upstream: Upstream, environment: dict[str, str]) -> Iterator[Instance]:
    """The one that is killed and started again."""
    options = ("--config", str(upstream.models(tmp_path / "models.yaml")), "--slots", str(SLOTS))
    running = Instance(tmp_path / "data", *options, app=None, **environment)
    try:
        yield running.wait_ready()
        running.stop()
    finally:
        running.kill()


async def test_killed_and_started_again(server: Instance, upstream: Upstream) -> None:
    """Whatever was unfinished ends, whatever was finished reads the same, and conversations go on."""
    log = server.runtime["log_url"]
    with connect(server) as client:
        conversation = _speaking(client, upstream)
    finished, unfinished, shown = await _before(server)
    kill_all(server)
    assert await findings(log) == []

    await asyncio.to_thread(server.start_again)
    async with _client(server) as http:
        for response_id, body, heard in finished:
            assert (await http.get(f"/v1/responses/{response_id}")).content == body
            assert await replayed(http, response_id) == heard
        ends = await asyncio.wait_for(
            asyncio.gather(*(replayed(http, response_id) for response_id in unfinished)), ENDED_S
        )
    for heard, before in zip(ends, shown, strict=True):
        assert check_whole(heard)["status"] == "completed"
        assert text_of(heard) == TEXT
        assert heard[: len(before)] == before, "what was shown before stays what was said"
    with connect(server) as client:
        _chain_goes_on(client, upstream, finished[0][0], unfinished[0])
        until(lambda: len(texts(client, conversation)) > 1, "the end of what ran", ENDED_S)
        assert texts(client, conversation) == ["One", "Two", "".join(words(SPOKEN))]
        assert not locked(client, conversation)
    assert await findings(log) == []


def _speaking(client: openai.OpenAI, upstream: Upstream) -> str:
    """A conversation in which a response runs."""
    model = own(f"deltas={SPOKEN}&interval_ms=100&goes_on=1")
    conversation = client.conversations.create(items=[says("One")]).id
    client.responses.create(model=model, input="Two", conversation=conversation, background=True)
    until(lambda: upstream.calls(model), "the upstream to be asked")
    assert locked(client, conversation)
    return conversation


async def _before(
    server: Instance,
) -> tuple[list[tuple[str, bytes, list[bytes]]], list[str], list[list[bytes]]]:
    """Finished responses with their bytes; unfinished ones, and what was shown of each."""
    async with _client(server) as http:
        finished = []
        for body in ({"model": "fake?echo=1"}, {"model": "fake?status=401"}, {"model": "fake?tools=1"}):
            answer = await http.post("/v1/responses", json={"input": "remember me", **body})
            response_id = answer.json()["id"]
            finished.append((response_id, answer.content, await replayed(http, response_id)))
        asked = {"model": LONG, "input": "x"}
        unfinished: list[str] = []
        shown: list[list[bytes]] = []
        for background in (True, False):
            streamed = {**asked, "stream": True, "background": background}
            async with opened(http, "POST", "/v1/responses", json=streamed) as payloads:
                heard = [await anext(payloads)]
                while len(heard) < 10:
                    heard.append(await anext(payloads))
            unfinished.append(id_of(heard[0]))
            shown.append(heard)
        quiet = await asyncio.gather(
            *(http.post("/v1/responses", json={**asked, "background": True}) for _ in range(WAITING))
        )
        unfinished += [answer.json()["id"] for answer in quiet]
        shown += [[]] * WAITING
        waiting = await http.get("/v1/responses", params={"status": "queued", "limit": "100"})
        assert len(waiting.json()["data"]) > WAITING - 2 * SLOTS - 2, "most of them wait"
        return finished, unfinished, shown


def _client(server: Instance) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=2 * WAITING)
    return httpx.AsyncClient(base_url=server.url, timeout=SERVER_LIMIT_S, limits=limits)


def _chain_goes_on(client: openai.OpenAI, upstream: Upstream, finished: str, resumed: str) -> None:
    for parent, said in ((finished, "remember me"), (resumed, TEXT)):
        model = f"fake?echo=1&key={parent}"
        answer = client.responses.create(model=model, input="and now?", previous_response_id=parent)
        assert answer.output_text == "and now?"
        [asked] = upstream.calls(model)
        assert json.dumps(said) in json.dumps(asked["messages"][1]["content"])
