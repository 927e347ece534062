"""Compaction: a summary in the place of a long context, which the client carries along unread."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import orjson

from runtime.model import (
    JSON,
    CallEnded,
    CallStarted,
    ItemClosed,
    ItemOpened,
    Model,
    ModelError,
    ModelEvent,
    ModelRequest,
    TextDelta,
)
from runtime.response.items import ADDITIONAL
from runtime.response.request import ResponseRequest

Item = Mapping[str, JSON]

TRIGGER: Final = "compaction_trigger"
"""The input item that asks for a compaction now; always the last one."""
BYTES_PER_TOKEN: Final = 4
"""A rule of thumb, where nobody counts tokens."""
SUMMARIZE: Final = (
    "Summarize the conversation so far, for yourself: the summary will stand in its place, and you will go "
    "on from it. Keep what is still needed: what the user wants and has decided, facts, names, numbers and "
    "ids to the letter, what was tried and came of it, what is left to do. Answer with the summary alone."
)
_ASK: Final = "Now summarize the conversation so far."
_SUMMARY: Final = "Summary of the conversation so far, which it stands for:\n\n"


def tokens_of(values: Iterable[JSON]) -> int:
    """About how many tokens these are for a model."""
    return sum(len(orjson.dumps(_shown(value))) for value in values) // BYTES_PER_TOKEN


def _shown(value: JSON) -> JSON:
    return {key: one for key, one in value.items() if key[:1] != "_"} if isinstance(value, Mapping) else value


def is_due(context: Sequence[Item], request: ResponseRequest) -> bool:
    """Whether a response begins with a compaction: asked for, or because its context is too long."""
    if context and context[-1].get("type") == TRIGGER:
        return True
    threshold = request.compact_threshold
    said = without_offers(context)
    if threshold is None or tokens_of([*offers(context), *said]) <= threshold:
        return False
    return len(without_offers(last_turn(context))) < len(said)


def last_turn(context: Sequence[Item]) -> Sequence[Item]:
    """What is still to be answered: from the last message of the user on.

    Nothing where only a summary is wanted.
    """
    if context and context[-1].get("type") == TRIGGER:
        return ()
    for index in range(len(context) - 1, -1, -1):
        if context[index].get("role") == "user":
            return context[index:]
    return context


def compacted(items: Sequence[Item]) -> Sequence[Item]:
    """The items from the last compaction on that stands for all before it, and what was offered before."""
    for index in range(len(items) - 1, -1, -1):
        origin = items[index].get("_upstream") or {}
        if items[index].get("type") == "compaction" and origin.get("replaces"):
            return [*offers(items[:index]), *items[index:]]
    return items


def offers(items: Sequence[Item]) -> list[Item]:
    """The items that offer tools, without those whose every tool a later one offers anew."""
    kept: list[Item] = []
    named: set[tuple[JSON, JSON]] = set()
    for item in reversed(items):
        if item.get("type") == ADDITIONAL:
            tools = {(tool.get("type"), tool.get("name")) for tool in item["tools"]}
            if not tools <= named:
                kept.append(item)
                named |= tools
    return kept[::-1]


def without_offers(items: Iterable[Item]) -> list[Item]:
    """The items that are told, and can be summarized."""
    return [item for item in items if item.get("type") != ADDITIONAL]


def as_message(item: Item) -> dict[str, JSON]:
    """A compaction as a model is told of it."""
    summary = (item.get("_upstream") or {}).get("summary") or ""
    # A user's message, because many chat templates refuse a system message anywhere but in front.
    return {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": _SUMMARY + summary}],
    }


def question() -> dict[str, Any]:
    """What ends a conversation that is to be summarized."""
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": _ASK}]}


class CompactingModel:
    """`model`, asked for a summary of what it is told; its one item is the compaction."""

    def __init__(self, model: Model, seal: Callable[[Mapping[str, Any]], str]) -> None:
        self._model = model
        self._seal = seal

    @asynccontextmanager
    async def call(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Sequence[ModelEvent]]]:
        """Make one call.  Raises `ModelError`, also where no summary came back."""
        items = [item for item in without_offers(request.items) if item.get("type") != TRIGGER]
        asked = replace(
            request,
            instructions=SUMMARIZE,
            items=(*items, question()),
            tools=(),
            tool_choice="auto",
            text={"format": {"type": "text"}},
            top_logprobs=None,
            max_output_tokens=None,
        )
        async with self._model.call(asked) as batches, aclosing(self._summary(batches)) as events:
            yield events

    async def models(self) -> Sequence[str]:
        """The names the upstream lists."""
        return await self._model.models()

    async def aclose(self) -> None:
        """Release connections."""
        await self._model.aclose()

    async def _summary(
        self, batches: AsyncIterator[Sequence[ModelEvent]]
    ) -> AsyncGenerator[Sequence[ModelEvent]]:
        texts: list[str] = []
        async for batch in batches:
            for event in batch:
                if isinstance(event, CallStarted):
                    yield [event]
                elif isinstance(event, TextDelta):
                    texts.append(event.text)
                elif isinstance(event, CallEnded):
                    summary = "".join(texts).strip()
                    if not summary:
                        raise ModelError("server_error", "The model gave no summary.", retryable=True)
                    sealed = self._seal({"summary": summary, "replaces": True})
                    closed = ItemClosed(sealed=sealed, summary=summary)
                    yield [ItemOpened("compaction"), closed, CallEnded("stop", event.usage)]
