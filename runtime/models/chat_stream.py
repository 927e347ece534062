"""Reads the chunks of a Chat Completions stream into model events, as OpenAI and its likenesses send it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from runtime.model import (
    JSON,
    ArgumentsDelta,
    CallEnded,
    FinishReason,
    ItemOpened,
    ModelEvent,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Usage,
)
from runtime.models.json_text import dumps, loads
from runtime.models.one_at_a_time import OneAtATime, OpenItem
from runtime.models.reader import ErrorObject, count, read_logprobs

FINISHES: Mapping[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
"""What upstreams call their finishes; every other word means `stop`."""
CALLS_MAX = 128
CALL_ID_CHARS = 64


@dataclass(slots=True)
class _Call:
    """A function call whose pieces come in."""

    key: str
    """The upstream's id of it, where it gave one."""
    item: OpenItem | None = None
    """Nothing until its name is known."""
    arguments: list[str] = field(default_factory=list)


class ChatReader:
    """One call's chunks in, events out."""

    def __init__(self) -> None:
        self.ended = False
        self._items = OneAtATime()
        self._plain: OpenItem | None = None
        """The open message or reasoning item."""
        self._calls: list[_Call] = []
        self._numbers: dict[int, _Call] = {}
        """The call that a number means at present."""
        self._finish: str | None = None
        self._usage = Usage()

    def feed(self, data: bytes) -> None:
        """One event's data.  Raises `ErrorObject`, and `ValueError` and its like for nonsense."""
        if self.ended:
            return
        if data == b"[DONE]":
            self._end()
            return
        self._chunk(loads(data))

    def whole(self, value: JSON) -> None:
        """A whole chat completion, from an upstream that does not stream."""
        self._chunk(value)
        self._end()

    def at_end(self) -> None:
        """The stream is over; with a finish it was all."""
        if self._finish is not None and not self.ended:
            self._end()

    def take(self) -> list[ModelEvent]:
        """The events since the last time."""
        return self._items.take()

    def _chunk(self, chunk: JSON) -> None:
        if error := chunk.get("error"):
            raise ErrorObject(error)
        if usage := chunk.get("usage"):
            self._usage = _usage(usage)
        for choice in chunk.get("choices") or ():
            if choice.get("index"):
                continue  # Only one answer was asked for.
            delta = choice.get("delta") or choice.get("message")
            if delta and self._finish is None:
                self._delta(delta, (choice.get("logprobs") or {}).get("content"))
            if finish := choice.get("finish_reason"):
                if finish == "error":
                    raise ErrorObject(choice.get("error") or {})
                self._finish = self._finish or str(finish)

    def _delta(self, delta: Mapping[str, JSON], logprobs: JSON) -> None:
        # DeepSeek's name and OpenRouter's; a server that sends both says the same twice.
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            self._say("reasoning", thought)
        content = delta.get("content")
        if isinstance(content, str):
            if content:
                self._say("message", content, logprobs)
        elif content:
            self._parts(content)
        if refusal := delta.get("refusal"):
            self._items.say(self._open_plain("message"), RefusalDelta, refusal)
        for position, call in enumerate(delta.get("tool_calls") or ()):
            self._call(position, call)

    def _parts(self, parts: JSON) -> None:
        """Content as a list, as Mistral sends it: texts, and thinking with texts of its own."""
        for part in parts:
            if part.get("type") == "thinking":
                for thought in part.get("thinking") or ():
                    self._say("reasoning", thought.get("text") or "")
            else:
                self._say("message", part.get("text") or "")

    def _say(self, kind: str, text: str, logprobs: JSON = None) -> None:
        if kind == "message":
            told = read_logprobs(logprobs)
            say = partial(TextDelta, logprobs=told) if told else TextDelta
            self._items.say(self._open_plain("message"), say, text)
        else:
            self._items.say(self._open_plain("reasoning"), ReasoningDelta, text)

    def _open_plain(self, kind: str) -> OpenItem:
        plain = self._plain
        if plain is None or plain.opened.kind != kind:
            self._before_another()
            plain = self._plain = self._items.open(
                ItemOpened("message" if kind == "message" else "reasoning")
            )
        return plain

    def _before_another(self) -> None:
        """Another item begins: a text before it is whole, a call is where its arguments are whole JSON."""
        if self._plain is not None:
            self._items.close(self._plain)
            self._plain = None
        for call in self._calls:
            self._close_if_whole(call)

    def _close_if_whole(self, call: _Call) -> None:
        if call.item is not None and call.item.closed is None and _is_object("".join(call.arguments)):
            self._items.close(call.item)

    def _call(self, position: int, delta: Mapping[str, JSON]) -> None:
        function = delta.get("function") or {}
        call = self._known_call(position, delta, function)
        text = function.get("arguments") or ""
        if isinstance(text, Mapping):
            text = dumps(text).decode()
        if call.item is None and (name := function.get("name")):
            self._before_another()
            opened = ItemOpened("function_call", name=name, call_id=self._usable(call.key))
            call.item = self._items.open(opened)
            for piece in call.arguments:
                self._items.say(call.item, ArgumentsDelta, piece)
        if not text or (call.item is not None and call.item.closed is not None and not text.strip()):
            return
        call.arguments.append(text)
        if call.item is not None:
            self._items.say(call.item, ArgumentsDelta, text)
            if self._items.crowded:
                self._close_if_whole(call)

    def _known_call(self, position: int, delta: Mapping[str, JSON], function: Mapping[str, JSON]) -> _Call:
        """The call that a delta belongs to.

        Some servers number no calls, some number every one 0: then a name with a new id begins a new call.
        """
        key = str(delta.get("id") or "")
        index = delta.get("index")
        number = index if isinstance(index, int) else position
        known = self._numbers.get(number)
        named_anew = bool(function.get("name")) and (key != known.key if key and known else index is None)
        if known is None or named_anew:
            if len(self._calls) >= CALLS_MAX:
                raise ValueError(f"more than {CALLS_MAX} calls")
            known = self._numbers[number] = _Call(key)
            self._calls.append(known)
        return known

    def _usable(self, key: str) -> str:
        """The upstream's id of a call, where it is one; else nothing, and the runtime gives its own."""
        twice = sum(call.key == key for call in self._calls) > 1
        return "" if twice or len(key) > CALL_ID_CHARS else key

    def _end(self) -> None:
        self.ended = True
        finish = FINISHES.get(self._finish or "stop", "stop")
        if finish in ("stop", "tool_calls"):
            self._close_all()
            finish = "tool_calls" if self._calls else "stop"
        self._items.add(CallEnded(finish, self._usage))

    def _close_all(self) -> None:
        for call in self._calls:
            if call.item is None:
                raise ValueError("a function call without a name")
            if not "".join(call.arguments).strip():
                # A function without parameters: some servers say nothing where others say {}.
                self._items.say(call.item, ArgumentsDelta, "{}")
            self._items.close(call.item)
        if self._plain is not None:
            self._items.close(self._plain)


def _is_object(text: str) -> bool:
    """Whether the text is a whole JSON object."""
    try:
        return text.rstrip().endswith("}") and isinstance(loads(text.encode("utf-8", "replace")), dict)
    except ValueError:
        return False


def _usage(usage: Mapping[str, JSON]) -> Usage:
    into = usage.get("prompt_tokens_details") or {}
    out = usage.get("completion_tokens_details") or {}
    return Usage(
        input_tokens=count(usage.get("prompt_tokens")),
        output_tokens=count(usage.get("completion_tokens")),
        cached_tokens=count(into.get("cached_tokens") or usage.get("prompt_cache_hit_tokens")),
        reasoning_tokens=count(out.get("reasoning_tokens")),
    )
