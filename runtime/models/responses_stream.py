"""Reads the events of a Responses stream into model events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from runtime.model import (
    JSON,
    ArgumentsDelta,
    CallEnded,
    FinishReason,
    ItemKind,
    ItemOpened,
    ModelEvent,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    Usage,
)
from runtime.models.json_text import loads
from runtime.models.one_at_a_time import OneAtATime, OpenItem, Say
from runtime.models.reader import ErrorObject, count, read_logprobs

KINDS: Mapping[str, ItemKind] = {
    "message": "message",
    "function_call": "function_call",
    "reasoning": "reasoning",
}
"""The item types that a model says; others (an upstream's hosted tools) were not asked for."""
DELTAS: Mapping[str, tuple[ItemKind, Say]] = {
    "response.output_text.delta": ("message", TextDelta),
    "response.refusal.delta": ("message", RefusalDelta),
    "response.function_call_arguments.delta": ("function_call", ArgumentsDelta),
    # OpenAI's name and the one of Open Responses.
    "response.reasoning_text.delta": ("reasoning", ReasoningDelta),
    "response.reasoning.delta": ("reasoning", ReasoningDelta),
}
ITEMS_MAX = 1000


@dataclass(slots=True)
class _Item:
    """An item under its output index."""

    open: OpenItem
    said: bool = False
    """Whether its content has come in deltas."""
    summarised: bool = False
    """Whether its summary has."""


class ResponsesReader:
    """One call's events in, events out."""

    def __init__(self) -> None:
        self.ended = False
        self._items = OneAtATime()
        self._by_index: dict[int, _Item] = {}
        self._obey: Mapping[str, Callable[[Mapping[str, JSON]], None]] = {
            "response.output_item.added": self._added,
            "response.output_item.done": self._done,
            "response.reasoning_summary_text.delta": self._summary,
            "response.completed": self._finished,
            "response.incomplete": self._finished,
            "response.failed": self._failed,
            "error": self._error,
        }

    def feed(self, data: bytes) -> None:
        """One event's data.  Raises `ErrorObject`, and `ValueError` and its like for nonsense."""
        if self.ended or data == b"[DONE]":
            return
        event = loads(data)
        kind = event.get("type") or ("error" if "error" in event else "")
        if (delta := DELTAS.get(kind)) is not None:
            item = self._at(event, delta[0])
            item.said = True
            say = delta[1]
            if told := read_logprobs(event.get("logprobs")):
                say = partial(TextDelta, logprobs=told)
            self._items.say(item.open, say, event["delta"])
        elif (obey := self._obey.get(kind)) is not None:
            obey(event)

    def whole(self, value: JSON) -> None:
        """A whole response object, from an upstream that does not stream."""
        if value.get("status") == "failed" or (value.get("error") and "output" not in value):
            raise ErrorObject(value.get("error"))
        self._finished({"response": value})

    def at_end(self) -> None:
        """The stream is over; only its last event says that it was all."""

    def take(self) -> list[ModelEvent]:
        """The events since the last time."""
        return self._items.take()

    def _at(self, event: Mapping[str, JSON], kind: ItemKind) -> _Item:
        """The item that an event belongs to; some servers announce no messages."""
        index = int(event["output_index"])
        item = self._by_index.get(index)
        if item is None:
            if kind == "function_call":
                raise ValueError("arguments of a function call that did not begin")
            item = self._begin(index, ItemOpened(kind, upstream_id=event.get("item_id")))
        if item.open.opened.kind != kind:
            raise ValueError(f"{event.get('type')} within an item of the kind {item.open.opened.kind}")
        return item

    def _begin(self, index: int, opened: ItemOpened) -> _Item:
        if len(self._by_index) >= ITEMS_MAX:
            raise ValueError(f"more than {ITEMS_MAX} items")
        item = self._by_index[index] = _Item(self._items.open(opened))
        return item

    def _added(self, event: Mapping[str, JSON]) -> None:
        index, item = int(event["output_index"]), event["item"]
        if (kind := KINDS.get(item["type"])) is None or index in self._by_index:
            return
        name, call_id = str(item.get("name") or ""), str(item.get("call_id") or "")
        if kind == "function_call" and not name:
            raise ValueError("a function call without a name")
        self._begin(index, ItemOpened(kind, name=name, call_id=call_id, upstream_id=item.get("id")))

    def _summary(self, event: Mapping[str, JSON]) -> None:
        item = self._at(event, "reasoning")
        item.summarised = True
        self._say_summary(item, int(event.get("summary_index") or 0), event["delta"])

    def _say_summary(self, item: _Item, index: int, text: str) -> None:
        self._items.say(item.open, partial(SummaryDelta, index=index), text)

    def _done(self, event: Mapping[str, JSON]) -> None:
        """An item is whole; what no delta said of it is said now."""
        whole = event["item"]
        if whole["type"] not in KINDS:
            return
        self._added(event)
        item = self._by_index[int(event["output_index"])]
        if item.open.closed is not None:
            return
        if not item.summarised:
            for index, part in enumerate(whole.get("summary") or ()):
                self._say_summary(item, index, part["text"])
        if not item.said:
            self._say_content(item.open, whole)
        if whole.get("status") != "incomplete":
            self._items.close(item.open, whole.get("encrypted_content"))

    def _say_content(self, item: OpenItem, whole: Mapping[str, JSON]) -> None:
        if whole["type"] == "function_call":
            self._items.say(item, ArgumentsDelta, whole.get("arguments") or "{}")
        for part in whole.get("content") or ():
            if part.get("type") == "refusal":
                self._items.say(item, RefusalDelta, part["refusal"])
            elif part.get("type") in ("output_text", "reasoning_text", "text"):
                say: Say = ReasoningDelta if whole["type"] == "reasoning" else TextDelta
                self._items.say(item, say, part["text"])

    def _finished(self, event: Mapping[str, JSON]) -> None:
        response = event["response"]
        for index, item in enumerate(response.get("output") or ()):
            # Usually all of it has been said; a server that says little before gets a hearing here.
            if index not in self._by_index:
                self._done({"output_index": index, "item": item})
        finish: FinishReason = "stop"
        if response.get("status") == "incomplete":
            reason = (response.get("incomplete_details") or {}).get("reason")
            finish = "content_filter" if reason == "content_filter" else "length"
        else:
            for known in self._by_index.values():
                self._items.close(known.open)
            if any(known.open.opened.kind == "function_call" for known in self._by_index.values()):
                finish = "tool_calls"
        self.ended = True
        self._items.add(CallEnded(finish, _usage(response.get("usage") or {})))

    def _failed(self, event: Mapping[str, JSON]) -> None:
        raise ErrorObject(event["response"].get("error") or {})

    def _error(self, event: Mapping[str, JSON]) -> None:
        """OpenAI's flat form and the nested one."""
        nested = event.get("error")
        raise ErrorObject(nested or {key: event[key] for key in ("code", "message") if event.get(key)})


def _usage(usage: Mapping[str, JSON]) -> Usage:
    return Usage(
        input_tokens=count(usage.get("input_tokens")),
        output_tokens=count(usage.get("output_tokens")),
        cached_tokens=count((usage.get("input_tokens_details") or {}).get("cached_tokens")),
        reasoning_tokens=count((usage.get("output_tokens_details") or {}).get("reasoning_tokens")),
    )
