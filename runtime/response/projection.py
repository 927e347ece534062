"""What clients see of each event: `project(state, event) -> wire events`.

Pure, and versioned: a response is shown for ever as the version named in its `ResponseCreated` shows it.
A change that alters one byte is a new version beside the old ones; golden logs hold every version still.
The shapes and their order are PROTOCOL.md's, section d.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from runtime.response import events as e
from runtime.response.aggregate import (
    PART_KINDS,
    Appended,
    OpenItem,
    Part,
    PartKind,
    ResponseState,
    apply,
    growing_part,
    item_json,
    part_json,
    tool_output,
    wire_index,
)
from runtime.response.errors import UnknownEvent
from runtime.response.snapshot import lifecycle_data
from runtime.response.wire import WireEvent, dumps

# Types of an `error` event by code, as OpenAI names them; all others are the server's.
_ERROR_TYPES: Final[Mapping[str, str]] = {
    "rate_limit_exceeded": "rate_limit_error",
    "invalid_prompt": "invalid_request_error",
}
_OBFUSCATED_CHARS: Final = 16  # Deltas are padded to a multiple of this.


def project(state: ResponseState, event: e.Event) -> list[WireEvent]:
    """The wire events that `event` shows, `state` being the fold of all events before it.

    Raises `UnknownEvent` for a projection of a newer version.
    """
    created = event if isinstance(event, e.ResponseCreated) else state.created
    if created is None:
        return []  # Only the tombstone of an erased response has nothing before it.
    version = PROJECTIONS.get(created.projection)
    if version is None:
        raise UnknownEvent(created.id, 0, f"projection {created.projection}")
    return version(state, event)


def _project_1(state: ResponseState, event: e.Event) -> list[WireEvent]:
    match event:
        case (
            e.TextAppended()
            | e.RefusalAppended()
            | e.ArgumentsAppended()
            | e.ReasoningAppended()
            | e.SummaryAppended()
        ):
            return _appended(state, event)
        case e.ItemStarted():
            return _item_started(state, event)
        case e.ItemEnded():
            return _item_ended(state, event)
        case e.ResponseCreated(queued=queued):
            return _lifecycle(state, event, "created", "queued" if queued else "in_progress")
        case e.ActivationStarted() if state.status == "queued":
            return _lifecycle(state, event, "in_progress")
        case e.ToolFinished():
            return _tool_finished(state, event)
        case e.ResponseCompleted():
            return _lifecycle(state, event, "completed")
        case e.ResponseIncomplete() | e.ResponseCancelled():
            # Neither API has an event of its own for a cancelled response; the snapshot's status tells.
            return _lifecycle(state, event, "incomplete")
        case e.ResponseFailed():
            return _failed(state, event)
        case _:
            return []  # Model calls, tools that start, later activations and the tombstone show nothing.


PROJECTIONS: Final[Mapping[int, Callable[[ResponseState, e.Event], list[WireEvent]]]] = {1: _project_1}


def _lifecycle(state: ResponseState, event: e.Event, *names: str) -> list[WireEvent]:
    after = apply(state, event)
    first = state.next_number
    types = [f"response.{name}" for name in names]
    return [
        WireEvent(number, type, lifecycle_data(type, number, after))
        for number, type in enumerate(types, first)
    ]


def _failed(state: ResponseState, event: e.ResponseFailed) -> list[WireEvent]:
    """The error in both known forms (the SDKs read the one or the other), then the end."""
    number = state.next_number
    error = {"code": event.code, "message": event.message, "param": None}
    nested = {"type": _ERROR_TYPES.get(event.code, "server_error"), **error}
    data = dumps({"type": "error", "sequence_number": number, **error, "error": nested})
    type = "response.failed"
    end = lifecycle_data(type, number + 1, apply(state, event))
    return [WireEvent(number, "error", data), WireEvent(number + 1, type, end)]


class _Writer:
    """Collects wire events of one item, numbering them."""

    def __init__(self, state: ResponseState, item: OpenItem) -> None:
        self.item = item
        self.number = state.next_number
        self.events: list[WireEvent] = []

    def add(self, type: str, body: Mapping[str, Any]) -> None:
        data = dumps({"type": type, "sequence_number": self.number, **body})
        self.events.append(WireEvent(self.number, type, data))
        self.number += 1

    def place(self, kind: PartKind, index: int) -> dict[str, Any]:
        """Where a part stands."""
        return _where(self.item.id, self.item.output_index, kind, index)


def _where(item_id: str, output_index: int, kind: PartKind, index: int) -> dict[str, Any]:
    where: dict[str, Any] = {"item_id": item_id, "output_index": output_index}
    if kind == "summary_text":
        where["summary_index"] = index
    elif kind != "arguments":
        where["content_index"] = index
    return where


def _item_started(state: ResponseState, event: e.ItemStarted) -> list[WireEvent]:
    item = apply(state, event).open_item
    assert item is not None
    writer = _Writer(state, item)
    shape = item_json(item, "in_progress")
    if item.kind == "message":
        shape["content"] = []  # Its first part opens with its first delta.
    writer.add("response.output_item.added", {"output_index": item.output_index, "item": shape})
    if item.kind == "shell_call" and item.action is not None:
        _commands(writer, item.action["commands"])
    return writer.events


def _commands(writer: _Writer, commands: Sequence[str]) -> None:
    """What a shell shall run: known at once, so each command is one delta."""
    for index, command in enumerate(commands):
        place = {"output_index": writer.item.output_index, "command_index": index}
        writer.add("response.shell_call_command.added", {**place, "command": ""})
        writer.add("response.shell_call_command.delta", {**place, "delta": command})
        writer.add("response.shell_call_command.done", {**place, "command": command})


def _item_ended(state: ResponseState, event: e.ItemEnded) -> list[WireEvent]:
    item = state.open_item
    if item is None:
        return []
    writer = _Writer(state, item)
    names = _names(state, item)
    if item.parts:
        _close_part(writer, names, item.parts[-1], len(item.parts) - 1, event.status)
    elif item.kind == "message":
        _open_part(writer, "output_text", 0)
        _close_part(writer, names, Part("output_text", ""), 0, event.status)
    elif item.kind in ("function_call", "custom_tool_call"):
        _close_part(writer, names, Part("arguments", ""), 0, event.status)
    finished = apply(state, event).output[-1]
    writer.add("response.output_item.done", {"output_index": item.output_index, "item": finished})
    return writer.events


def _tool_finished(state: ResponseState, event: e.ToolFinished) -> list[WireEvent]:
    """The output of a tool that the server ran comes whole."""
    index, number = len(state.output), state.next_number
    shown = []
    for name, status in (("added", "in_progress"), ("done", "completed")):
        type_ = f"response.output_item.{name}"
        body = {"output_index": index, "item": tool_output(state, event, status)}
        shown.append(WireEvent(number, type_, dumps({"type": type_, "sequence_number": number, **body})))
        number += 1
    return shown


def _appended(state: ResponseState, event: Appended) -> list[WireEvent]:
    item = state.open_item
    if item is None:
        return []
    kind = PART_KINDS[type(event)]
    place = len(item.parts) - 1
    shown: list[WireEvent] = []
    if growing_part(item, event) is None:
        place += 1
        shown = _next_part(state, item, kind, place)
    type_ = f"{_names(state, item)[kind]}.delta"
    around = _around(type_, kind, item.id, item.output_index, wire_index(item, kind, place))
    first = state.next_number + len(shown)
    if isinstance(event, e.TextAppended) and event.logprobs:
        shown += _with_logprobs(_deltas(state, first, type_, around, event.deltas), event.logprobs)
    else:
        shown += _deltas(state, first, type_, around, event.deltas)
    return shown


def _with_logprobs(
    events: Iterable[WireEvent], logprobs: Iterable[Sequence[Mapping[str, Any]]]
) -> Iterator[WireEvent]:
    """The deltas of a text, each with what is told of its tokens."""
    for event, told in zip(events, logprobs, strict=True):
        # Everything behind the delta is ours: the member is there, and is the last of its name.
        before, _, after = event.data.rpartition(b'"logprobs":[]')
        yield event._replace(data=b'%b"logprobs":%b%b' % (before, dumps(list(told)), after))


def _next_part(state: ResponseState, item: OpenItem, kind: PartKind, place: int) -> list[WireEvent]:
    """One part ends and the next begins."""
    writer = _Writer(state, item)
    if item.parts:
        _close_part(writer, _names(state, item), item.parts[-1], place - 1, "completed")
    _open_part(writer, kind, wire_index(item, kind, place))
    return writer.events


Around = tuple[bytes, bytes, bytes]
"""The constant bytes of a delta event: before its number, between number and text, and behind the text."""


@lru_cache(maxsize=1024)  # As many items as are being said in one process, and then some.
def _around(type: str, kind: PartKind, item_id: str, output_index: int, index: int) -> Around:
    where = _where(item_id, output_index, kind, index)
    return (
        b'{"type":"%b","sequence_number":' % type.encode(),
        b"," + dumps(where)[1:-1] + b',"delta":',
        b',"logprobs":[]}' if kind == "output_text" else b"}",
    )


def _deltas(
    state: ResponseState, first: int, type: str, around: Around, deltas: tuple[str, ...]
) -> Iterable[WireEvent]:
    """One wire event a delta.

    All that is alike was formatted once: tokens are the bulk of what is shown, and this halves their cost.
    The bytes are those that `dumps` would have made.
    """
    seed = state.created.obfuscation if state.created else None
    if seed is not None and type != "response.refusal.delta":
        return _obfuscated(seed, first, type, around, deltas)
    prefix, middle, suffix = around
    quote = orjson.dumps
    return [
        WireEvent(number, type, b"%b%d%b%b%b" % (prefix, number, middle, quote(delta), suffix))
        for number, delta in enumerate(deltas, first)
    ]


def _obfuscated(
    seed: str, first: int, type: str, around: Around, deltas: tuple[str, ...]
) -> Iterator[WireEvent]:
    """Deltas whose length does not betray the token: padded by characters that only the seed knows."""
    prefix, middle, suffix = around
    for number, delta in enumerate(deltas, first):
        padding = hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()
        padding = padding[: _OBFUSCATED_CHARS - len(delta) % _OBFUSCATED_CHARS]
        end = b'%b,"obfuscation":"%b"}' % (suffix[:-1], padding.encode())
        yield WireEvent(number, type, b"%b%d%b%b%b" % (prefix, number, middle, dumps(delta), end))


def _open_part(writer: _Writer, kind: PartKind, index: int) -> None:
    if kind == "arguments":
        return
    type = (
        "response.reasoning_summary_part.added" if kind == "summary_text" else "response.content_part.added"
    )
    writer.add(type, {**writer.place(kind, index), "part": part_json(Part(kind, ""))})


def _close_part(writer: _Writer, names: Mapping[PartKind, str], part: Part, place: int, status: str) -> None:
    index = wire_index(writer.item, part.kind, place)
    where = writer.place(part.kind, index)
    done = f"{names[part.kind]}.done"
    match part.kind:
        case "arguments":
            # A half call must not read as a whole one: its item alone says that it is over.
            if status == "completed":
                whole = "input" if writer.item.kind == "custom_tool_call" else "arguments"
                writer.add(done, {**where, whole: part.text})
            return
        case "output_text":
            writer.add(done, {**where, "text": part.text, "logprobs": part.logprobs})
        case "refusal":
            writer.add(done, {**where, "refusal": part.text})
        case _:
            writer.add(done, {**where, "text": part.text})
    type = (
        "response.reasoning_summary_part.done"
        if part.kind == "summary_text"
        else "response.content_part.done"
    )
    writer.add(type, {**where, "part": part_json(part)})


_NAMES: Final[Mapping[PartKind, str]] = {
    "output_text": "response.output_text",
    "refusal": "response.refusal",
    "arguments": "response.function_call_arguments",
    "reasoning_text": "response.reasoning_text",
    "summary_text": "response.reasoning_summary_text",
}
_DIALECTS: Final[Mapping[str, Mapping[PartKind, str]]] = {
    "openai": _NAMES,
    "open_responses": {**_NAMES, "reasoning_text": "response.reasoning"},
}

_CUSTOM: Final[Mapping[PartKind, str]] = {**_NAMES, "arguments": "response.custom_tool_call_input"}


def _names(state: ResponseState, item: OpenItem) -> Mapping[PartKind, str]:
    """What the dialect of this response calls the events of each kind of part."""
    assert state.created is not None
    return _CUSTOM if item.kind == "custom_tool_call" else _DIALECTS[state.created.dialect]
