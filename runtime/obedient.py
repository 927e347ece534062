"""A model that keeps to its request, whatever the upstream makes of it.

Upstreams take some wishes for hints, and know no other tools than functions.  What a client was promised is
held here: no call of a tool that is not allowed, no second call where only one is, and items of the tools
that the client named.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager

from runtime.client_tools import CallTranslator, ClientTools, with_additional
from runtime.model import (
    CallEnded,
    ItemClosed,
    ItemOpened,
    Model,
    ModelError,
    ModelEvent,
    ModelRequest,
)
from runtime.response.items import CALLS


class ObedientModel:
    """`model`, with the tools of the Responses API, and held to `tool_choice` and `parallel_tool_calls`."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @asynccontextmanager
    async def call(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Sequence[ModelEvent]]]:
        """Make one call.  Raises `ModelError`, also where nothing but forbidden calls came back."""
        request = with_additional(request)
        tools = ClientTools(request.tools)
        if not tools.are_plain or any(item.get("type") not in _PLAIN for item in request.items):
            request = tools.told(request)
        rules = _Rules(request)
        async with self._model.call(request) as batches:
            if tools.are_plain and rules.allow_everything:
                yield batches
                return
            async with aclosing(_kept(batches, rules, CallTranslator(tools))) as kept:
                yield kept

    async def models(self) -> Sequence[str]:
        """The names the upstream lists."""
        return await self._model.models()

    async def aclose(self) -> None:
        """Release connections."""
        await self._model.aclose()


_PLAIN = frozenset({"message", "reasoning", "function_call_output"})
"""Items that no tool of the client changes.  A function's call may stand in a namespace."""


async def _kept(
    batches: AsyncIterator[Sequence[ModelEvent]], rules: _Rules, translator: CallTranslator
) -> AsyncGenerator[Sequence[ModelEvent]]:
    async for batch in batches:
        if kept := translator.feed(rules.feed(batch)):
            yield kept


class _Rules:
    """Leaves out the calls that the request does not allow.  They never reach anybody."""

    def __init__(self, request: ModelRequest) -> None:
        self._allowed = _allowed(request)
        self._one_call = not request.parallel_tool_calls and bool(request.tools)
        self._called = False
        self._said = False
        self._leaving_out = False
        self._forbidden = ""

    @property
    def allow_everything(self) -> bool:
        return self._allowed is None and not self._one_call

    def feed(self, events: Sequence[ModelEvent]) -> list[ModelEvent]:
        return [event for event in events if self._passes(event)]

    def _passes(self, event: ModelEvent) -> bool:
        if isinstance(event, ItemOpened):
            self._leaving_out = event.kind in CALLS and not self._may_call(event.name)
            self._said = self._said or not (self._leaving_out or event.kind == "reasoning")
        elif isinstance(event, CallEnded):
            self._leaving_out = False
            if self._forbidden and not self._said:
                message = f"The model called {self._forbidden[:64]!r}, which the request does not allow."
                raise ModelError("upstream_protocol", message, retryable=True)
        elif self._leaving_out and isinstance(event, ItemClosed):
            self._leaving_out = False
            return False
        return not self._leaving_out

    def _may_call(self, name: str) -> bool:
        if self._allowed is not None and name not in self._allowed:
            self._forbidden = name
            return False
        if self._one_call and self._called:
            return False
        self._called = True
        return True


def _allowed(request: ModelRequest) -> frozenset[str] | None:
    """The functions that may be called, or None for any."""
    choice = request.tool_choice
    if choice == "none":
        return frozenset()
    if not isinstance(choice, Mapping):
        return None
    if choice.get("type") == "function":
        return frozenset({str(choice.get("name"))})
    if choice.get("mode") == "none":
        return frozenset()
    return frozenset(str(tool.get("name")) for tool in choice.get("tools") or ())
