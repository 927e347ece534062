"""The adapter of any server of Chat Completions."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from runtime.model import ModelEvent, ModelRequest
from runtime.models.chat_request import chat_body
from runtime.models.chat_stream import ChatReader
from runtime.models.http import Http
from runtime.models.json_text import dumps
from runtime.models.reader import read


class OpenAIChatModel:
    """One upstream that speaks Chat Completions; serves any number of calls at once."""

    def __init__(self, http: Http) -> None:
        self._http = http

    @asynccontextmanager
    async def call(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Sequence[ModelEvent]]]:
        """Ask, and yield what streams back.  Raises `ModelError`."""
        body = dumps(chat_body(request, self._http.upstream))
        async with (
            self._http.post("/chat/completions", body) as answer,
            aclosing(read(answer, ChatReader(), self._http, hashlib.sha256(body).hexdigest())) as events,
        ):
            yield events

    async def models(self) -> Sequence[str]:
        """The ids that the upstream lists.  Raises `ModelError`."""
        return await self._http.models()

    async def count_tokens(self, request: ModelRequest) -> int | None:
        """The tokens of the request's input, where the upstream can tell, as vLLM and llama.cpp can.

        Raises `ModelError` where it cannot.
        """
        body = chat_body(request, self._http.upstream)
        asked = {key: body[key] for key in ("model", "messages", "tools") if key in body}
        told = await self._http.ask("/tokenize", asked, beside=True)
        if isinstance(count := told.get("count"), int):
            return count
        # llama.cpp takes no messages there, but tells the prompt that it makes of them.
        prompt = await self._http.ask("/apply-template", asked, beside=True)
        told = await self._http.ask("/tokenize", {"content": prompt["prompt"]}, beside=True)
        return len(told["tokens"])

    async def aclose(self) -> None:
        """Nothing of its own: the connections belong to the process."""
