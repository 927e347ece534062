"""Tools that a running server runs itself: what clients see of them, and what a crash does to them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from runtime.tool_calls import OUTCOME_UNKNOWN
from tests.e2e.parts import HOST, named
from tests.e2e.spending import EFFECTS
from tests.e2e.upstream import Upstream
from tests.e2e.wire import check_whole, replayed, text_of
from tests.fakes.script import words
from tests.launching import Instance, until


def test_a_client_sees_call_and_output_and_is_asked_for_nothing(client: openai.OpenAI) -> None:
    """OpenAI's own client, streaming; the conversation goes on behind it."""
    with client.responses.stream(model="counts", input="How long is abc?") as stream:
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["function_call", "function_call_output", "message"]
    call, output, _ = final.output
    assert call.type == "function_call"
    assert output.type == "function_call_output"
    assert (call.arguments, output.call_id, output.output) == ('{"text":"abc"}', call.call_id, "3")
    assert final.output_text == "This answer is simulated. The tool length answered: 3"
    kept = client.responses.retrieve(final.id).output
    assert kept[1] == output
    more = client.responses.create(model="simulated", input="And now?", previous_response_id=final.id)
    assert more.status == "completed"


def test_a_client_cannot_take_the_place_of_a_tool_that_the_server_runs(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "name": "length", "parameters": {}, "strict": False}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="counts", input="x", tools=tools)
    assert refused.value.param == "tools[0].name"


@pytest.mark.parametrize("purse", ["once", "again"])
async def test_a_host_is_killed_while_a_tool_runs(
    instance: Instance, http: httpx.AsyncClient, upstream: Upstream, environment: dict[str, str], purse: str
) -> None:
    """`kill -9` of every host: at most once and the model is told, or once more with the same key."""
    directory = Path(environment[EFFECTS])
    effects = directory / purse
    asked = {"model": f"spends-{purse}", "input": "Spend.", "background": True}
    response_id = (await http.post("/v1/responses", json=asked)).json()["id"]
    await asyncio.to_thread(until, effects.exists, "the effect")
    for host in named(instance, HOST):
        host.kill()
    if purse == "again":
        runs = lambda: len(effects.read_text().splitlines()) == 2  # noqa: E731  (a condition, said once)
        await asyncio.to_thread(until, runs, "the second run")
    (directory / f"{purse}.go").touch()
    payloads = await replayed(http, response_id)
    final = check_whole(payloads)
    assert final["status"] == "completed", final["error"]
    assert text_of(payloads) == "".join(words(8))
    call, output = final["output"][:2]
    runs_of = [line.split() for line in effects.read_text().splitlines()]
    assert {key for key, _ in runs_of} == {call["id"]}
    told = {"once": OUTCOME_UNKNOWN, "again": "spent from again"}[purse]
    assert output["output"] == told
    assert len(runs_of) == {"once": 1, "again": 2}[purse]
    assert len({pid for _, pid in runs_of}) == len(runs_of), "another host ran it again"
    model = f'fake?tools=1&arguments={{"purse":"{purse}"}}&key={purse}'
    bodies = upstream.calls(model)
    assert len(bodies) == 2, "the model was not asked for its call again"
    assert bodies[1]["messages"][-1] == {"role": "tool", "tool_call_id": call["call_id"], "content": told}
