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
from tests.e2e.log import findings, log_of
from tests.e2e.parts import kill_all
from tests.e2e.upstream import Upstream
from tests.e2e.wire import check_whole, id_of, opened, replayed, text_of
from tests.fakes.script import words
from tests.launching import Instance

DELTAS = 50
LONG = f"fake?deltas={DELTAS}&interval_ms=100&goes_on=1&key=restart"
TEXT = "".join(words(DELTAS))
SLOTS = 20
"""Of each of the two hosts: most of what is unfinished waits in the queue when everything is killed."""
WAITING = 10 if os.environ.get("RAYSPOND_ISOLATION") == "dedicated" else 100
"""Responses in the background that nobody follows; a Ray actor for each takes a second of a processor."""
ENDED_S = 180.0


@pytest.fixture
def servers(tmp_path: Path, upstream: Upstream, environment: dict[str, str]) -> Iterator[list[Instance]]:
    """Servers on one data directory, one after the other: `start` gives the next one."""
    started: list[Instance] = []
    try:
        yield started
    finally:
        for server in started:
            server.kill()


async def test_killed_and_started_again(
    tmp_path: Path, upstream: Upstream, environment: dict[str, str], servers: list[Instance]
) -> None:
    """Whatever was unfinished ends, whatever was finished reads the same, and conversations go on."""
    models = upstream.models(tmp_path / "models.yaml")
    log = log_of(tmp_path / "data", environment)

    def start() -> Instance:
        options = ("--config", str(models), "--slots", str(SLOTS))
        servers.append(Instance(tmp_path / "data", *options, app=None, **environment))
        return servers[-1].wait_ready()

    first = await asyncio.to_thread(start)
    finished, unfinished, shown = await _before(first)
    kill_all(first)
    assert await findings(log) == []

    second = await asyncio.to_thread(start)
    async with _client(second) as http:
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
    with connect(second) as client:
        _conversation_goes_on(client, upstream, finished[0][0], unfinished[0])
    await asyncio.to_thread(second.stop)
    assert await findings(log) == []


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


def _conversation_goes_on(client: openai.OpenAI, upstream: Upstream, finished: str, resumed: str) -> None:
    for parent, said in ((finished, "remember me"), (resumed, TEXT)):
        model = f"fake?echo=1&key={parent}"
        answer = client.responses.create(model=model, input="and now?", previous_response_id=parent)
        assert answer.output_text == "and now?"
        [asked] = upstream.calls(model)
        assert json.dumps(said) in json.dumps(asked["messages"][1]["content"])
