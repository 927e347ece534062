"""Everything is killed at once, and started again on the same data directory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.conftest import SERVER_LIMIT_S, connect
from tests.e2e.log import findings
from tests.e2e.parts import kill_all
from tests.e2e.upstream import Upstream
from tests.e2e.wire import check_whole, id_of, opened, replayed, text_of
from tests.fakes.script import words
from tests.launching import Instance

LONG = "fake?deltas=150&interval_ms=100&goes_on=1&key=restart"
TEXT = "".join(words(150))


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

    def start() -> Instance:
        servers.append(Instance(tmp_path / "data", "--config", str(models), app=None, **environment))
        return servers[-1].wait_ready()

    first = await asyncio.to_thread(start)
    finished, unfinished, shown = await _before(first)
    kill_all(first)
    assert await findings(tmp_path / "data") == []

    second = await asyncio.to_thread(start)
    async with httpx.AsyncClient(base_url=second.url, timeout=SERVER_LIMIT_S) as http:
        for response_id, body, heard in finished:
            assert (await http.get(f"/v1/responses/{response_id}")).content == body
            assert await replayed(http, response_id) == heard
        ends = await asyncio.wait_for(
            asyncio.gather(*(replayed(http, response_id) for response_id in unfinished)), 120
        )
    for heard, before in zip(ends, shown, strict=True):
        assert check_whole(heard)["status"] == "completed"
        assert text_of(heard) == TEXT
        assert heard[: len(before)] == before, "what was shown before stays what was said"
    with connect(second) as client:
        _conversation_goes_on(client, upstream, finished[0][0], unfinished[0])
    await asyncio.to_thread(second.stop)
    assert await findings(tmp_path / "data") == []


async def _before(
    server: Instance,
) -> tuple[list[tuple[str, bytes, list[bytes]]], list[str], list[list[bytes]]]:
    """Finished responses with their bytes; unfinished ones, and what was shown of each."""
    async with httpx.AsyncClient(base_url=server.url, timeout=SERVER_LIMIT_S) as http:
        finished = []
        for body in ({"model": "fake?echo=1"}, {"model": "fake?status=401"}, {"model": "fake?tools=1"}):
            answer = await http.post("/v1/responses", json={"input": "remember me", **body})
            response_id = answer.json()["id"]
            finished.append((response_id, answer.content, await replayed(http, response_id)))
            asked = {"model": LONG, "input": "x"}
        quiet = await http.post("/v1/responses", json={**asked, "background": True})
        unfinished: list[str] = [quiet.json()["id"]]
        shown: list[list[bytes]] = [[]]
        for background in (True, False):
            streamed = {**asked, "stream": True, "background": background}
            async with opened(http, "POST", "/v1/responses", json=streamed) as payloads:
                heard = [await anext(payloads)]
                while len(heard) < 10:
                    heard.append(await anext(payloads))
            unfinished.append(id_of(heard[0]))
            shown.append(heard)
        return finished, unfinished, shown


def _conversation_goes_on(client: openai.OpenAI, upstream: Upstream, finished: str, resumed: str) -> None:
    for parent, said in ((finished, "remember me"), (resumed, TEXT)):
        model = f"fake?echo=1&key={parent}"
        answer = client.responses.create(model=model, input="and now?", previous_response_id=parent)
        assert answer.output_text == "and now?"
        [asked] = upstream.calls(model)
        assert json.dumps(said) in json.dumps(asked["messages"][1]["content"])
