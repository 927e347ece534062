"""The adapter of a server that speaks Responses itself.  Nothing is kept there: all context is sent."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager

from runtime.catalog import Upstream
from runtime.model import JSON, ModelEvent, ModelRequest
from runtime.models.http import Http
from runtime.models.json_text import dumps
from runtime.models.reader import read
from runtime.models.responses_stream import ResponsesReader


class OpenAIResponsesModel:
    """One upstream that speaks Responses; serves any number of calls at once."""

    def __init__(self, http: Http) -> None:
        self._http = http

    @asynccontextmanager
    async def call(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Sequence[ModelEvent]]]:
        """Ask, and yield what streams back.  Raises `ModelError`."""
        body = dumps(responses_body(request, self._http.upstream))
        async with (
            self._http.post("/responses", body) as answer,
            aclosing(read(answer, ResponsesReader(), self._http, hashlib.sha256(body).hexdigest())) as events,
        ):
            yield events

    async def models(self) -> Sequence[str]:
        """The ids that the upstream lists.  Raises `ModelError`."""
        return await self._http.models()

    async def count_tokens(self, request: ModelRequest) -> int | None:
        """The tokens of the request's input, where the upstream can tell.  Raises `ModelError`."""
        body = responses_body(request, self._http.upstream)
        known = ("model", "input", "instructions", "tools", "tool_choice", "text", "reasoning")
        told = await self._http.ask(
            "/responses/input_tokens", {key: body[key] for key in known if key in body}
        )
        return int(told["input_tokens"])

    async def aclose(self) -> None:
        """Nothing of its own: the connections belong to the process."""


def responses_body(request: ModelRequest, upstream: Upstream) -> dict[str, JSON]:
    """The body of the call.  Pure; only fields that were given are sent."""
    given = {
        "instructions": request.instructions,
        "tools": list(request.tools) or None,
        "tool_choice": request.tool_choice if request.tools and request.tool_choice != "auto" else None,
        "parallel_tool_calls": False if request.tools and not request.parallel_tool_calls else None,
        "text": None if request.text == {"format": {"type": "text"}} else request.text,
        "reasoning": {key: value for key, value in (request.reasoning or {}).items() if value is not None}
        or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "max_output_tokens": request.max_output_tokens,
        "user": request.user,
        "top_logprobs": request.top_logprobs,
    }
    include = ["reasoning.encrypted_content"]
    if request.top_logprobs is not None:
        include.append("message.output_text.logprobs")
    return {
        "model": request.model,
        "input": [own for item in request.items if (own := _own(item, upstream.name)) is not None],
        "stream": True,
        "store": False,
        "include": include,
        **{name: value for name, value in given.items() if value is not None},
        **upstream.extra,
    }


def _own(item: Mapping[str, JSON], name: str) -> dict[str, JSON] | None:
    """An item as this upstream knows it: with the id and the encrypted reasoning that it gave, without ours.

    Reasoning of another upstream is left out: only the one that encrypted it can read it.
    """
    given: Mapping[str, JSON] = item.get("_upstream") or {}
    given = given if given.get("name") == name else {}
    own = {key: value for key, value in item.items() if key not in ("_upstream", "id", "encrypted_content")}
    if given.get("id"):
        own["id"] = given["id"]
    if item.get("type") != "reasoning":
        return own
    if not given.get("encrypted_content"):
        return None
    own["encrypted_content"] = given["encrypted_content"]
    return {key: value for key, value in own.items() if key not in ("content", "status")}
