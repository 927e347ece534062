"""Making a model call in a test, and reading what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.catalog import Adapter, Timeouts, Upstream
from runtime.model import (
    ArgumentsDelta,
    CallEnded,
    CallStarted,
    ItemClosed,
    ItemOpened,
    Model,
    ModelError,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)
from tests.fakes.upstream import FakeUpstream
from tests.patience import PATIENCE_S

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text}


def ask(model: str, *items: dict[str, Any], **fields: Any) -> ModelRequest:
    return ModelRequest(model=model, instructions=fields.pop("instructions", None), items=items, **fields)


def upstream_of(fake: FakeUpstream, adapter: Adapter = "openai_chat", **fields: Any) -> Upstream:
    """The fake as an upstream, with more patience than a busy machine needs."""
    timeouts = fields.pop("timeouts", Timeouts(connect=20, first_byte=20, idle=20))
    return Upstream("fake", adapter, fake.url, timeouts=timeouts, **fields)


@dataclass
class Said:
    """Everything one call yielded, and how it ended."""

    batches: list[Sequence[ModelEvent]] = field(default_factory=list)
    error: ModelError | None = None

    @property
    def events(self) -> list[ModelEvent]:
        return [event for batch in self.batches for event in batch]

    @property
    def end(self) -> CallEnded:
        last = self.events[-1]
        assert isinstance(last, CallEnded), self.error or last
        return last

    @property
    def pieces(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, TextDelta)]

    @property
    def items(self) -> list[tuple[str, str]]:
        """(kind or name, everything it said) of each item; `...` behind what was not closed.

        Fails where the port's rule of one open item at a time is broken.
        """
        found: list[list[str]] = []
        is_open = False
        for event in self.events:
            if isinstance(event, ItemOpened):
                assert not is_open, "an item began within another"
                is_open = True
                found.append([event.name or event.kind, ""])
            elif isinstance(event, ItemClosed):
                assert is_open
                is_open = False
            elif not isinstance(event, CallStarted | CallEnded):
                assert is_open, "a delta outside of every item"
                marks: dict[type, str] = {RefusalDelta: "refuses: ", SummaryDelta: "in short: "}
                found[-1][1] += marks.get(type(event), "") if not found[-1][1] else ""
                assert isinstance(
                    event, TextDelta | ArgumentsDelta | ReasoningDelta | RefusalDelta | SummaryDelta
                )
                found[-1][1] += event.text
        if is_open:
            found[-1][1] += "..."
        return [(kind, text) for kind, text in found]


async def call(model: Model, request: ModelRequest) -> Said:
    """Make the call and read it to its end."""
    said = Said()
    try:
        async with model.call(request) as batches:
            async for batch in batches:
                said.batches.append(batch)
    except ModelError as error:
        said.error = error
    return said


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, at most half a minute."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # the fake counts; it has no event to wait for
            await asyncio.sleep(0.005)
