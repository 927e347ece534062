"""A response's events as they come over HTTP, byte by byte, and what must be true of all of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.conformance import check_event

DONE = b"[DONE]"
ENDS = {"response.completed", "response.failed", "response.incomplete"}


@asynccontextmanager
async def opened(
    http: httpx.AsyncClient, method: str, path: str, **options: Any
) -> AsyncIterator[AsyncIterator[bytes]]:
    """A stream whose `data:` payloads come one by one; leaving drops the connection."""
    async with http.stream(method, path, **options) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _payloads(answer)


async def _payloads(answer: httpx.Response) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in answer.aiter_raw():
        *frames, rest = (rest + chunk).split(b"\n\n")
        for frame in frames:
            if frame.startswith(b":"):
                continue
            *named, data = frame.split(b"\n")
            payload = data.removeprefix(b"data: ")
            if payload != DONE:
                assert named == [b"event: " + json.loads(payload)["type"].encode()]
            yield payload
    assert rest == b"", "the connection ended in the middle of a frame"


async def created(http: httpx.AsyncClient, body: dict[str, Any], **options: Any) -> list[bytes]:
    """Create a response with `stream: true`; all its payloads."""
    async with opened(http, "POST", "/v1/responses", json={"stream": True, **body}, **options) as payloads:
        return [payload async for payload in payloads]


async def replayed(http: httpx.AsyncClient, response_id: str, after: int | None = None) -> list[bytes]:
    """A response's payloads from the log and then live; those behind `after`, or all."""
    params = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    async with opened(http, "GET", f"/v1/responses/{response_id}", params=params) as payloads:
        return [payload async for payload in payloads]


def id_of(payload: bytes) -> str:
    """The response's id, from a lifecycle event."""
    return str(json.loads(payload)["response"]["id"])


def number_of(payload: bytes) -> int:
    """Its sequence number."""
    return int(json.loads(payload)["sequence_number"])


def text_of(payloads: Sequence[bytes]) -> str:
    """The answer's words, from the deltas."""
    events = [json.loads(payload) for payload in payloads if payload != DONE]
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def check_whole(payloads: Sequence[bytes], *, strictly: bool = True) -> dict[str, Any]:
    """A whole stream: every number once, one end, `[DONE]` last, texts alike; the last snapshot.

    `strictly` also holds every event against the types of OpenAI's SDK and of Open Responses.
    """
    assert payloads[-1] == DONE
    events: list[dict[str, Any]] = [json.loads(payload) for payload in payloads[:-1]]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] in ENDS for event in events] == [False] * (len(events) - 1) + [True]
    assert events[0]["type"] == "response.created"
    if strictly:
        for payload in payloads[:-1]:
            check_event(payload)
    last: dict[str, Any] = events[-1]["response"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert last["output"] == done
    assert text_of(payloads) == output_text(last)
    return last


def output_text(response: dict[str, Any]) -> str:
    """All words of a response's messages."""
    parts = [part for item in response["output"] for part in item.get("content", ())]
    return "".join(part["text"] for part in parts if part["type"] == "output_text")
