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

    async def aclose(self) -> None:
        """Nothing of its own: the connections belong to the process."""
