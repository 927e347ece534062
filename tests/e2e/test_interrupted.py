"""Answers whose hosts are killed again and again: people read one answer, and its upstream sold it once."""

from __future__ import annotations

import asyncio
import json

import httpx
import openai
import pytest

from tests.e2e.parts import HOST, named
from tests.e2e.upstream import PACED_DELTAS, Upstream
from tests.e2e.wire import check_whole, id_of, opened, text_of
from tests.fakes.script import words
from tests.launching import Instance, until

WORDS = "".join(words(PACED_DELTAS)).split(" ")
KILLED_AT = (10, 40)
"""Deltas after which all hosts die."""
IN_FLIGHT = 20
"""Words that an upstream may have said at a death without anybody having heard them, on a busy machine."""


@pytest.mark.parametrize(
    ("model", "scripted", "way"),
    [
        ("continues", "unique=1&continues=vllm&trims=1&key=continues", "prefix"),
        ("goes-on-anew", "unique=1&goes_on=1&key=anew", "prompt"),
        ("repeats", "key=repeats", "repeat"),
    ],
)
async def test_people_read_one_answer_and_only_the_call_in_flight_is_bought_again(
    instance: Instance,
    http: httpx.AsyncClient,
    client: openai.OpenAI,
    upstream: Upstream,
    model: str,
    scripted: str,
    way: str,
) -> None:
    """Twice `kill -9` of every host, on one connection; each call words the answer in its own way."""
    scripted = f"fake?deltas={PACED_DELTAS}&interval_ms=50&{scripted}"
    calls, bought = upstream.count(scripted), upstream.seen()["deltas"]
    payloads: list[bytes] = []
    kills = list(KILLED_AT)
    body = {"model": model, "input": "x", "stream": True}
    async with opened(http, "POST", "/v1/responses", json=body) as stream:
        async for payload in stream:
            payloads.append(payload)
            deltas = sum(b'"response.output_text.delta"' in one for one in payloads)
            if kills and deltas >= kills[0]:
                kills.pop(0)
                await asyncio.to_thread(_kill_all, instance)
    final = check_whole(payloads)
    assert final["status"] == "completed", final["error"]
    assert len(final["output"]) == 1, "the same item went on"
    read = client.responses.retrieve(id_of(payloads[0])).output_text
    assert read == text_of(payloads)
    assert [word.partition("-")[0] for word in read.split(" ")] == WORDS
    marks = [word.partition("-")[2] for word in read.split(" ")]
    assert len(set(marks)) == (1 if way == "repeat" else 3), "every call said its part"
    assert upstream.count(scripted) - calls == 1 + len(KILLED_AT)
    sold = upstream.seen()["deltas"] - bought
    again = sum(KILLED_AT) if way == "repeat" else 0
    assert sold <= PACED_DELTAS + again + 2 * IN_FLIGHT
    heard = json.loads(payloads[-2])["response"]["usage"]["output_tokens"]
    assert PACED_DELTAS <= heard <= sold, "what was cut off is counted, as far as it was heard"


def _kill_all(instance: Instance) -> None:
    hosts = named(instance, HOST)
    for host in hosts:
        host.kill()
    # The next blow shall fall on hosts that run again.
    until(
        lambda: {one.pid for one in named(instance, HOST)} - {one.pid for one in hosts},
        "a new host",
    )
