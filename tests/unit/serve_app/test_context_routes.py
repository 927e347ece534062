"""How long a context is, a shorter one in its place, and what clients carry along for us unread."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from runtime.catalog import Catalog, ModelConfig, Upstream
from runtime.model import (
    CallEnded,
    ItemClosed,
    ItemOpened,
    ModelError,
    ModelEvent,
    ReasoningDelta,
    TextDelta,
    Usage,
)
from runtime.sealing import Seal
from tests.fakes.upstream import FakeUpstream
from tests.local_cluster import CONFIG
from tests.unit.actors.kit import always, in_turn, says
from tests.unit.serve_app.served import Connection, Served, served, until
from tests.unit.serve_app.test_client_tools import FUNCTION, additional, scripted

LONG = "word " * 2000
TRIGGER = {"type": "compaction_trigger"}
COMPACT = [{"type": "compaction", "compact_threshold": 1000}]


def asked(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def heard(item: Any) -> str:
    """The text of a message as the model was told it."""
    return str(item["content"][0]["text"])


# -- Counting ----------------------------------------------------------------------------------------------


async def test_tokens_are_estimated_where_nobody_counts_them(server: Served) -> None:
    counts = []
    for body in ({"input": "Hello"}, {"input": LONG, "model": "simulated"}, {}):
        answer = await server.client.post("/v1/responses/input_tokens", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["object"] == "response.input_tokens"
        counts.append(answer.json()["input_tokens"])
    assert counts[1] > len(LONG) // 5
    assert counts[0] < 100


async def test_what_went_before_counts_too(server: Served) -> None:
    before = (await server.create(input=LONG)).json()
    body = {"previous_response_id": before["id"], "input": "And?"}
    answer = await server.client.post("/v1/responses/input_tokens", json=body)
    assert answer.json()["input_tokens"] > len(LONG) // 5
    unknown = {"previous_response_id": "resp_" + "0" * 32}
    answer = await server.client.post("/v1/responses/input_tokens", json=unknown)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "previous_response_not_found")


@pytest.mark.parametrize("kind", ["vllm", "llama", "responses", "none"])
async def test_the_upstreams_own_tokenizer_is_asked(kind: str) -> None:
    async with FakeUpstream() as fake:
        fake.tokenizer = kind
        upstream = Upstream("u", "openai_responses" if kind == "responses" else "openai_chat", fake.url)
        async with served(Catalog(models={"m": ModelConfig("m", upstream)})) as server:
            body = {"model": "m", "input": "one two three"}
            answer = await server.client.post("/v1/responses/input_tokens", json=body)
    count = answer.json()["input_tokens"]
    assert count == 3 if kind != "none" else count > 3


# -- Compacting --------------------------------------------------------------------------------------------


async def test_a_conversation_is_summarized_and_goes_on_from_its_summary() -> None:
    async with scripted(in_turn(says("They ", "count."), says("Four."))) as (server, model):
        turns = [asked("One."), {"role": "assistant", "content": "Two."}, asked("Three.")]
        answer = await server.client.post("/v1/responses/compact", json={"model": "scripted", "input": turns})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["object"] == "response.compaction"
        assert body["usage"]["total_tokens"] > 0
        *kept, compaction = body["output"]
        assert [item["content"][0]["text"] for item in kept] == ["One.", "Three."]
        assert compaction["type"] == "compaction"
        assert "They count." not in answer.text
        told = model.requests[0]
        assert [heard(item) for item in told.items[:3]] == ["One.", "Two.", "Three."]
        assert told.instructions is not None
        assert told.instructions.startswith("Summarize")

        second = await server.create(model="scripted", input=[*body["output"], asked("And?")])
        assert second.status_code == 200, second.text
        items = [heard(item) for item in model.requests[1].items]
        assert items[:2] == ["One.", "Three."]
        assert items[2].endswith("They count.")
        assert items[3] == "And?"


async def test_what_a_response_continues_is_summarized_with_it() -> None:
    async with scripted(in_turn(says("Two."), says("Sum."))) as (server, model):
        first = (await server.create(model="scripted", input="One.")).json()
        body = {"model": "scripted", "previous_response_id": first["id"]}
        answer = await server.client.post("/v1/responses/compact", json=body)
    assert [item["type"] for item in answer.json()["output"]] == ["message", "compaction"]
    assert [heard(item) for item in model.requests[1].items[:2]] == ["One.", "Two."]


async def test_a_summary_that_cannot_be_had_is_an_error() -> None:
    failure = ModelError("upstream_auth", "The key is wrong.")
    async with scripted(always(failure)) as (server, _):
        answer = await server.client.post("/v1/responses/compact", json={"model": "scripted", "input": "x"})
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_auth"


async def test_a_summary_for_which_nobody_waits_is_bought_no_further() -> None:
    script = always([ItemOpened("message"), TextDelta("They")], asyncio.Event())
    async with scripted(script) as (server, model):
        body = orjson.dumps({"model": "scripted", "input": "x"})
        connection = Connection(server.api, "POST", "/v1/responses/compact", body)
        await until(lambda: model.batches_read > 0)
        connection.leave()
        await connection.done()
        await until(lambda: model.open_calls == 0)


async def test_a_summary_counts_among_the_responses_that_run() -> None:
    async with scripted(always(*says("Sum."))) as (server, model):
        quota = "/v1/organization/projects/default/quota"
        assert (await server.client.post(quota, json={"running_responses": 0})).status_code == 200
        answer = await server.client.post("/v1/responses/compact", json={"model": "scripted", "input": "x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (429, "running_responses")
    assert not model.requests


async def test_a_summary_needs_a_model(server: Served) -> None:
    answer = await server.client.post("/v1/responses/compact", json={"input": "x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "model")


async def test_a_summary_of_somewhere_else_is_refused(server: Served) -> None:
    foreign = Seal(CONFIG.secret_key).close("other project", {"summary": "x"})
    for content in ("gAAAA", foreign, "rs1.!", "rs1.AAAA"):
        answer = await server.create(input=[{"type": "compaction", "encrypted_content": content}, asked("x")])
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "input[0].encrypted_content"


@pytest.mark.parametrize("stored", [True, False])
async def test_a_context_that_grows_too_long_is_summarized_on_the_way(stored: bool) -> None:
    """For clients with `previous_response_id`, and for those that send everything again."""
    script = in_turn(says("Long."), says("They talked."), says("Yes."), says("Still."))
    more: dict[str, Any] = {"model": "scripted", "context_management": COMPACT, "store": stored}
    async with scripted(script) as (server, model):
        first = (await server.create(input=LONG, **more)).json()
        assert [item["type"] for item in first["output"]] == ["message"], "there was nothing before it"
        sent = [asked(LONG), *first["output"], asked("And?")]
        before = {"input": "And?", "previous_response_id": first["id"]} if stored else {"input": sent}
        second = (await server.create(**more, **before)).json()
        assert [item["type"] for item in second["output"]] == ["compaction", "message"]
        assert second["usage"]["input_tokens"] == 6, "both calls"
        assert "They talked." not in str(second)
        assert [heard(item) for item in model.requests[1].items[:3]] == [LONG, "Long.", "And?"]
        summary, question = model.requests[2].items
        assert heard(summary).endswith("They talked.")
        assert heard(question) == "And?"

        sent += [*second["output"], asked("Still?")]
        before = {"input": "Still?", "previous_response_id": second["id"]} if stored else {"input": sent}
        third = (await server.create(**more, **before)).json()
        assert [item["type"] for item in third["output"]] == ["message"]
        told = [heard(item) for item in model.requests[3].items]
        assert told[0].endswith("They talked.")
        assert told[1:] == ["Yes.", "Still?"]


async def test_a_summary_can_be_asked_for() -> None:
    async with scripted(in_turn(says("Sum."), says("On."))) as (server, model):
        turns = [asked("One."), {"type": "compaction_trigger"}]
        first = (await server.create(model="scripted", input=turns)).json()
        assert first["status"] == "completed"
        assert [item["type"] for item in first["output"]] == ["compaction"]
        assert len(model.requests) == 1
        body = {"previous_response_id": first["id"], "input": "Go on."}
        await server.create(model="scripted", **body)
    told = [heard(item) for item in model.requests[1].items]
    assert told[0].endswith("Sum.")
    assert told[1:] == ["Go on."]


async def test_a_summary_is_asked_for_last(server: Served) -> None:
    answer = await server.create(input=[{"type": "compaction_trigger"}, asked("x")])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[0]")


async def test_a_model_without_a_summary_ends_the_response() -> None:
    empty: list[ModelEvent] = [ItemOpened("message"), ItemClosed(), CallEnded("stop", Usage(1, 0))]
    async with scripted(always(empty)) as (server, model):
        turns = [asked("One."), {"type": "compaction_trigger"}]
        answer = (await server.create(model="scripted", input=turns)).json()
    assert answer["error"]["code"] == "server_error"
    assert len(model.requests) == 3


# -- Reasoning ---------------------------------------------------------------------------------------------


def thinks(*, encrypted: str | None) -> list[list[ModelEvent]]:
    thought = ItemOpened("reasoning", upstream_id="up_1")
    events: list[ModelEvent] = [thought, ReasoningDelta("Hm."), ItemClosed(encrypted)]
    events += [ItemOpened("message"), TextDelta("Yes."), ItemClosed(), CallEnded("stop", Usage(1, 1))]
    return [events]


@pytest.mark.parametrize("more", [{"store": False}, {"include": ["reasoning.encrypted_content"]}])
async def test_reasoning_that_a_client_carries_along_goes_back_to_its_model(more: dict[str, Any]) -> None:
    async with scripted(in_turn(thinks(encrypted="theirs"), says("On."))) as (server, model):
        first = (await server.create(model="scripted", input="One.", **more)).json()
        reasoning, message = first["output"]
        assert "theirs" not in reasoning["encrypted_content"]
        carried = {key: reasoning[key] for key in ("type", "summary", "encrypted_content")}
        again = [asked("One."), carried, message, asked("Go on.")]
        second = await server.create(model="scripted", input=again, store=False)
    assert second.status_code == 200
    told = model.requests[1].items[1]
    assert told["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    known = {"name": "simulated", "id": "up_1", "encrypted_content": "theirs"}
    assert told["_upstream"] == known


async def test_reasoning_of_other_servers_does_no_harm(server: Served) -> None:
    foreign = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"}
    answer = await server.create(input=[asked("One."), foreign, asked("Two.")])
    assert answer.status_code == 200
    items = await server.client.get(f"/v1/responses/{answer.json()['id']}/input_items?order=asc")
    assert items.json()["data"][1]["encrypted_content"] == "gAAAA"
    assert "_upstream" not in items.text


async def test_nobody_is_sent_what_nobody_asked_for() -> None:
    async with scripted(in_turn(thinks(encrypted="theirs"))) as (server, _):
        answer = await server.create(model="scripted", input="One.")
    assert "encrypted_content" not in answer.text


def test_a_seal_opens_for_its_key_and_project_only() -> None:
    sealed = Seal("key").close("p", {"a": 1})
    assert sealed == Seal("key").close("p", {"a": 1}), "nothing here is random"
    assert Seal("key").open("p", sealed) == {"a": 1}
    assert Seal("key").open("q", sealed) is None
    assert Seal("other").open("p", sealed) is None
    assert Seal("key").open("p", sealed[:-2] + ("AA" if sealed[-2:] != "AA" else "BB")) is None


# -- Tools that items offer --------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", [True, False])
async def test_no_summary_stands_for_tools_that_an_item_offers(trigger: bool) -> None:
    """They stay offered to the response that sent them, and to what continues it."""
    script = in_turn(says("Long."), says("They talked."), says("Yes."), says("Still."))
    more: dict[str, Any] = {"model": "scripted", "context_management": COMPACT}
    async with scripted(script) as (server, model):
        first = (await server.create(input=LONG, **more)).json()
        sent = [additional(FUNCTION), *([TRIGGER] if trigger else [asked("And?")])]
        second = (await server.create(input=sent, previous_response_id=first["id"], **more)).json()
        spoken = ["compaction"] if trigger else ["compaction", "message"]
        assert [item["type"] for item in second["output"]] == spoken, second
        await server.create(input="Still?", previous_response_id=second["id"], **more)
    offered = [[tool["name"] for tool in request.tools] for request in model.requests]
    assert offered == [[], [], *([] if trigger else [["look_up"]]), ["look_up"]]


async def test_tools_that_an_item_offers_are_counted_once_and_never_summarized() -> None:
    long = {**FUNCTION, "description": LONG[:3000]}
    other = {**long, "name": "other"}
    script = always(*says("Yes."))
    more: dict[str, Any] = {"model": "scripted", "context_management": COMPACT}
    async with scripted(script) as (server, model):
        again = [additional(long), asked("One."), additional(long), asked("Two.")]
        assert (await server.create(input=again, **more)).status_code == 200
        alone = [additional(long), additional(other), asked("One.")]
        assert (await server.create(input=alone, **more)).status_code == 200
    assert len(model.requests) == 2
