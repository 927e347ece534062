"""Reasoning that a client carries along for us, so that it goes back to the model that thought it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from runtime.model import ItemClosed, ItemOpened, Model, ModelEvent, ModelRequest, ReasoningDelta


class SealedReasoningModel:
    """`model`, whose reasoning items close with all that the upstream gave with them, sealed."""

    def __init__(self, model: Model, upstream: str, seal: Callable[[Mapping[str, Any]], str]) -> None:
        self._model = model
        self._upstream = upstream
        self._seal = seal

    @asynccontextmanager
    async def call(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Sequence[ModelEvent]]]:
        """Make one call.  Raises `ModelError`."""
        async with self._model.call(request) as batches, aclosing(self._sealed(batches)) as events:
            yield events

    async def models(self) -> Sequence[str]:
        """The names the upstream lists."""
        return await self._model.models()

    async def aclose(self) -> None:
        """Release connections."""
        await self._model.aclose()

    async def _sealed(
        self, batches: AsyncIterator[Sequence[ModelEvent]]
    ) -> AsyncGenerator[Sequence[ModelEvent]]:
        opened: ItemOpened | None = None
        texts: list[str] = []
        async for batch in batches:
            events = list(batch)
            for index, event in enumerate(batch):
                if isinstance(event, ItemOpened):
                    opened, texts = event, []
                elif isinstance(event, ReasoningDelta):
                    texts.append(event.text)
                elif isinstance(event, ItemClosed) and opened is not None and opened.kind == "reasoning":
                    events[index] = replace(event, sealed=self._seal(self._origin(opened, event, texts)))
            yield events

    def _origin(self, opened: ItemOpened, closed: ItemClosed, texts: Sequence[str]) -> dict[str, Any]:
        known = {
            "name": self._upstream,
            "id": opened.upstream_id,
            "encrypted_content": closed.encrypted_content,
            "text": "".join(texts) or None,
        }
        return {key: value for key, value in known.items() if value is not None}
