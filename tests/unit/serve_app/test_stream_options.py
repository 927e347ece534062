"""What a request can ask to be told beside the words: padding, and how likely the words were."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from tests.unit.serve_app.served import Served, events_of

PADDED = {"stream": True, "stream_options": {"include_obfuscation": True}}


async def test_deltas_are_padded_for_who_asks_and_again_the_same_way(server: Served) -> None:
    live = await server.create(input="Hello, how are you?", **PADDED)
    events = events_of(live.content)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert len(deltas) > 3
    assert all(event["obfuscation"] for event in deltas)
    assert len({(len(event["delta"]) + len(event["obfuscation"])) % 16 for event in deltas}) == 1
    again = await server.client.get(f"/v1/responses/{events[0]['response']['id']}?stream=true")
    assert again.content == live.content


async def test_the_padding_can_be_left_out_of_a_replay_and_nothing_else_changes(server: Served) -> None:
    question = 'Say ,"obfuscation":"00"} please'
    live = await server.create(input=question, **PADDED)
    url = (
        f"/v1/responses/{events_of(live.content)[0]['response']['id']}?stream=true&include_obfuscation=false"
    )
    plain = await server.client.get(url)
    assert plain.content == re.sub(rb',"obfuscation":"[0-9a-f]+"\}\n', b"}\n", live.content)
    assert "obfuscation" in events_of(plain.content)[-1]["response"]["output"][0]["content"][0]["text"]


async def test_nobody_else_pays_for_padding(server: Served) -> None:
    live = await server.create(input="Hello", stream=True)
    assert b"obfuscation" not in live.content


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"top_logprobs": 2}, 1),  # The simulated model knows one token at each place.
        ({"include": ["message.output_text.logprobs"]}, 0),
    ],
)
async def test_how_likely_the_words_were_is_told_to_who_asks(
    server: Served, asked: dict[str, Any], told: int
) -> None:
    live = await server.create(input="Hello", stream=True, **asked)
    events = events_of(live.content)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    tokens = [one for event in deltas for one in event["logprobs"]]
    assert [token["token"] for token in tokens] == [event["delta"] for event in deltas]
    assert all(len(token["top_logprobs"]) == told for token in tokens)
    (done,) = [event for event in events if event["type"] == "response.output_text.done"]
    (item,) = events[-1]["response"]["output"]
    assert tokens == done["logprobs"] == item["content"][0]["logprobs"]
    again = await server.client.get(f"/v1/responses/{events[0]['response']['id']}?stream=true")
    assert again.content == live.content


async def test_padding_and_likelihood_go_together(server: Served) -> None:
    live = await server.create(input="Hello", top_logprobs=1, **PADDED)
    deltas = [event for event in events_of(live.content) if event["type"] == "response.output_text.delta"]
    assert all(event["obfuscation"] and event["logprobs"] for event in deltas)


async def test_nothing_is_told_of_words_to_who_does_not_ask(server: Served) -> None:
    whole = (await server.create(input="Hello")).json()
    assert b"logprobs" not in orjson.dumps(whole["output"])
