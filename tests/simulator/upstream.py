"""Upstream models that stall, break off and refuse, and whose every word tells where it belongs."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from runtime.catalog import Limits, Resolved, Upstream
from runtime.model import (
    ArgumentsDelta,
    CallEnded,
    CallStarted,
    ItemClosed,
    ItemOpened,
    ModelError,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    TextDelta,
    Usage,
)
from runtime.resume import GO_ON, WHAT_IS_LEFT
from tests.simulator.loop import Process
from tests.simulator.tools import SPEND, arguments_of
from tests.simulator.weather import Weather

WORDS_MAX: Final = 9
COUNT: Final = [{"type": "input_text", "text": "Count."}]
"""What every client asks."""
LETTERS: Final = "abcdefghijklmnopqrstuvxyz"


@dataclass(frozen=True)
class Manner:
    """How a model answers; it is written into the name of the model that a response asks for."""

    resume: str
    words: int
    varies: bool
    """Whether every call words its answer with another letter; else all with `w`."""
    continues: bool
    """Whether it goes on where it is told to; else it begins again."""
    calls: bool
    """Whether it thinks and then calls a function, instead of counting."""
    refuses: bool
    """Whether it answers nothing and never will."""
    spends: Literal["", "once", "again"]
    """Whether it has a tool of the server's pay for something before it counts, and whether that tool may pay
    again with the same key."""

    @classmethod
    def draw(cls, weather: Weather, resumes: Sequence[str]) -> Manner:
        """Any of them."""
        chance = weather.chance
        calls = chance.random() < 0.2
        return cls(
            resume=chance.choice(resumes),
            words=chance.randint(1, WORDS_MAX),
            varies=chance.random() < 0.5,
            continues=chance.random() < 0.8,
            calls=calls,
            refuses=chance.random() < 0.05,
            spends=chance.choice(["", "once", "again"]) if not calls else "",
        )

    @property
    def reads_as_one(self) -> bool:
        """Whether its interrupted answers must read as one, which begins again with nothing that was said."""
        return not self.calls and (self.continues or (self.resume == "repeat" and not self.varies))

    def agent(self, isolation: str | None) -> Mapping[str, Any]:
        """What is recorded of it."""
        traits = "v" * self.varies + "g" * self.continues + "c" * self.calls + "x" * self.refuses
        tools = ({**SPEND, "idempotent": self.spends == "again"},) if self.spends else ()
        return Resolved(
            id=repr(self),
            upstream=Upstream("simulated", "openai_chat", max_retries=3),
            model=f"{self.words}{traits}{self.spends and f'/{self.spends}'}",
            tools=tools,
            resume=self.resume,  # type: ignore[arg-type]  # one of the ways
            limits=Limits(seconds=600),
            isolation=isolation,  # type: ignore[arg-type]  # one of the kinds
        ).public()


class Provider:
    """The upstream: counts the calls that it answers, and what it did to them."""

    def __init__(self, weather: Weather) -> None:
        self.weather = weather
        self.calls: Counter[str] = Counter()
        """By response."""
        self.failed: Counter[str] = Counter()
        self.open: Counter[Process] = Counter()
        """Calls under way, by the process that makes them."""


class SimulatedModel:
    """`Model` of one process, for one agent."""

    def __init__(self, provider: Provider, process: Process) -> None:
        self._provider = provider
        self._weather = provider.weather
        self._process = process

    @asynccontextmanager
    async def call(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Sequence[ModelEvent]]]:
        """See `Model`."""
        response, traits = request.seed.partition(":")[0], request.model.partition("/")[0]
        number = self._provider.calls[response]
        self._provider.calls[response] += 1
        self._provider.open[self._process] += 1
        try:
            await asyncio.sleep(self._weather.between(0.001, 0.05))
            if "x" in traits:
                raise ModelError("invalid_prompt", "The simulation says so.")
            if request.goes_on and "g" not in traits:
                self._provider.failed[response] += 1
                raise ModelError("invalid_prompt", "The simulated server continues no half messages.")
            if self._weather.happens(self._weather.upstream_refuses):
                self._provider.failed[response] += 1
                after = self._weather.chance.choice([None, None, self._weather.between(0, 3)])
                code = self._weather.chance.choice(["rate_limit_exceeded", "server_error"])
                raise ModelError(code, "The simulation says so.", retryable=True, retry_after=after)
            async with aclosing(self._answer(request, response, number)) as batches:
                yield batches
        finally:
            self._provider.open[self._process] -= 1

    async def _answer(
        self, request: ModelRequest, response: str, number: int
    ) -> AsyncGenerator[Sequence[ModelEvent]]:
        weather = self._weather
        yield [CallStarted(f"call {number}", "0" * 64)]
        read: list[ModelEvent] = []
        for event in self._events(request, response, number):
            if weather.happens(weather.upstream_cuts / 10):
                self._provider.failed[response] += 1
                if read:
                    yield read
                raise ModelError("upstream_interrupted", "The simulation says so.", retryable=True)
            if weather.happens(weather.upstream_stalls / 10):
                await asyncio.sleep(weather.between(1, 10))
            read.append(event)
            if weather.chance.random() < 0.5:
                yield read
                read = []
                await asyncio.sleep(weather.between(0.001, 1.2))
        if read:
            yield read

    def _events(self, request: ModelRequest, response: str, number: int) -> Iterator[ModelEvent]:
        traits, _, spends = request.model.partition("/")
        letter = LETTERS[number % len(LETTERS)] if "v" in traits else "w"
        if "c" in traits:
            yield ItemOpened("reasoning")
            yield from map(ReasoningDelta, ("Which ", "city ", letter, "?"))
            yield ItemClosed()
            yield from _call("weather", f'{{"city":"{letter}"}}', number)
            return
        if spends and _is_unpaid(request):
            yield from _call("spend", arguments_of(f"{response}/{letter}/{spends}"), number)
            return
        text = "".join(f" {letter}{word}" for word in range(int(request.model[0])))
        half = half_said(request)
        if "g" in traits:
            text = text[len(half) :]
            if _is_told(request, WHAT_IS_LEFT):
                yield CallEnded("stop", Usage(1, 0))
                return
        yield ItemOpened("message")
        while text:
            size = self._weather.chance.randint(1, 5)
            yield TextDelta(text[:size])
            text = text[size:]
        yield ItemClosed()
        yield CallEnded("stop", Usage(1, int(request.model[0])))

    async def models(self) -> Sequence[str]:
        """See `Model`."""
        return []

    async def aclose(self) -> None:
        """See `Model`."""


def _call(name: str, arguments: str, number: int) -> Iterator[ModelEvent]:
    yield ItemOpened("function_call", name=name, call_id=f"call_{number}")
    yield from (ArgumentsDelta(arguments[at : at + 5]) for at in range(0, len(arguments), 5))
    yield ItemClosed()
    yield CallEnded("tool_calls", Usage(1, 1))


def _is_unpaid(request: ModelRequest) -> bool:
    """Whether nothing was bought yet since the model was asked to count."""
    kinds = [COUNT if item.get("content") == COUNT else item["type"] for item in request.items]
    return "function_call_output" not in kinds[len(kinds) - kinds[::-1].index(COUNT) :]


def half_said(request: ModelRequest) -> str:
    """What the model is told to go on with."""
    at = -1 if request.goes_on else -2 if _is_told(request, GO_ON) else None
    return str(request.items[at]["content"][0]["text"]) if at is not None else ""


def _is_told(request: ModelRequest, instruction: str) -> bool:
    asked = request.items[-1].get("content") or [{}]
    return bool(asked[0].get("text") == instruction)


def is_counted(text: str, words: int | None) -> bool:
    """Whether a text counts its words from 0 on: all of them, or, where none are named, as far as it goes."""
    if words is None:
        text = re.sub(r" [a-z]?$", "", text)
    numbers = re.findall(r" [a-z](\d)", text)
    whole = re.fullmatch(r"( [a-z]\d)*", text) is not None
    return whole and [*map(int, numbers)] == list(range(len(numbers) if words is None else words))
