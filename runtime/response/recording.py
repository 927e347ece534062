"""What a model said becomes events: the part of `decide` that is about output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from runtime import model as m
from runtime.response import commands as c
from runtime.response import events as e
from runtime.response.aggregate import ResponseState, taken_call_ids
from runtime.response.errors import IllegalCommand
from runtime.response.items import CALL_ID_CHARS_MAX, CALLS

Delta = m.TextDelta | m.RefusalDelta | m.ArgumentsDelta | m.ReasoningDelta | m.SummaryDelta

# What each kind of delta belongs to.
_HOMES: Final[Mapping[type[Delta], tuple[m.ItemKind, ...]]] = {
    m.TextDelta: ("message",),
    m.RefusalDelta: ("message",),
    m.ArgumentsDelta: ("function_call", "custom_tool_call"),
    m.ReasoningDelta: ("reasoning",),
    m.SummaryDelta: ("reasoning",),
}
# Ways to resume in which the model goes on with a message that is open already.
_GOES_ON: Final = ("prefix", "prompt")


def decide_output(command: c.RecordOutput, state: ResponseState) -> list[e.Event]:
    """The events of `command`.  Raises `IllegalCommand` for an order that no adapter may send."""
    output = _Output(command, state)
    for event in command.events:
        output.add(event)
    output.flush()
    return output.events


class _Output:
    """Puts model events in order into events, with just enough of the state to check them."""

    def __init__(self, command: c.RecordOutput, state: ResponseState) -> None:
        self.command = command
        self.state = state
        self.events: list[e.Event] = []
        self.open: m.ItemKind | None = state.open_item.kind if state.open_item else None
        self.ended = False
        self.call_ids: set[str] | None = None
        self.waiting: list[str] = []
        self.logprobs: list[Sequence[Mapping[str, m.JSON]]] = []
        self.waiting_for: tuple[type[Delta], int] | None = None

    def add(self, event: m.ModelEvent) -> None:
        if self.ended:
            raise self.refused("the call has ended")
        match event:
            case m.ItemOpened():
                self.item_opened(event)
            case m.ItemClosed():
                self.close(event)
            case m.CallEnded():
                self.call_ended(event)
            case m.CallStarted():
                raise self.refused("a call begins by BeginCall")
            case _:
                self.delta(event)

    def delta(self, event: Delta) -> None:
        if self.open not in _HOMES[type(event)]:
            raise self.refused(f"a {type(event).__name__} while the open item is {self.open or 'none'}")
        key = (type(event), event.index if isinstance(event, m.SummaryDelta) else 0)
        if key != self.waiting_for:
            self.flush()
            self.waiting_for = key
        if event.text:
            self.waiting.append(event.text)
            if isinstance(event, m.TextDelta):
                self.logprobs.append(event.logprobs)

    def item_opened(self, event: m.ItemOpened) -> None:
        if self.open is not None:
            call = self.state.call
            if event.kind == self.open == "message" and call is not None and call.resume in _GOES_ON:
                return  # The upstream opens anew what goes on for the client.
            raise self.refused(f"a {event.kind} opens while a {self.open} is open")
        self.flush()
        self.open = event.kind
        call_id = self.usable_call_id(event) if event.kind in CALLS else ""
        self.events.append(
            e.ItemStarted(event.kind, event.name, call_id, event.upstream_id, event.namespace, event.action)
        )

    def usable_call_id(self, event: m.ItemOpened) -> str:
        """The upstream's call id, or nothing where outputs could not be paired by it."""
        if self.call_ids is None:
            self.call_ids = set(taken_call_ids(self.state))
        usable = 0 < len(event.call_id) <= CALL_ID_CHARS_MAX and event.call_id not in self.call_ids
        if not usable:
            return ""
        self.call_ids.add(event.call_id)
        return event.call_id

    def close(self, event: m.ItemClosed) -> None:
        if self.open is None:
            raise self.refused("no item is open")
        self.flush()
        self.open = None
        self.events.append(e.ItemEnded("completed", event.encrypted_content, event.sealed, event.summary))

    def call_ended(self, event: m.CallEnded) -> None:
        self.flush()
        if self.open is not None:
            # An upstream that stops by itself forgot to close; one that was stopped broke it off.
            whole = event.finish in ("stop", "tool_calls")
            self.events.append(e.ItemEnded("completed" if whole else "incomplete"))
            self.open = None
        self.ended = True
        self.events.append(e.ModelCallEnded(event.finish, event.usage))

    def flush(self) -> None:
        """One event for the deltas that wait."""
        if self.waiting and self.waiting_for is not None:
            kind, index = self.waiting_for
            logprobs = tuple(self.logprobs) if any(self.logprobs) else ()
            self.events.append(_appended(kind, index, tuple(self.waiting), logprobs))
            self.waiting, self.logprobs = [], []
        self.waiting_for = None

    def refused(self, why: str) -> IllegalCommand:
        return IllegalCommand(self.command, self.state.status.value, why)


def _appended(
    kind: type[Delta],
    index: int,
    deltas: tuple[str, ...],
    logprobs: tuple[Sequence[Mapping[str, m.JSON]], ...],
) -> e.Event:
    if kind is m.TextDelta:
        return e.TextAppended(deltas, logprobs)
    if kind is m.RefusalDelta:
        return e.RefusalAppended(deltas)
    if kind is m.ArgumentsDelta:
        return e.ArgumentsAppended(deltas)
    if kind is m.ReasoningDelta:
        return e.ReasoningAppended(deltas)
    return e.SummaryAppended(index, deltas)
