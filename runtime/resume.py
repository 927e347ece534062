"""How an interrupted model call goes on: what is asked of the model, and where new words join the old ones.

Pure.  `plan` decides what a further attempt asks; its `Seam` fits what comes back to what is recorded, so
that followers see one answer: nothing twice, nothing missing.  The log says where a seam is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from runtime.model import (
    JSON,
    ArgumentsDelta,
    CallEnded,
    CallStarted,
    ItemClosed,
    ItemOpened,
    ModelEvent,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)
from runtime.response.aggregate import OpenItem, PartKind, ResponseState, item_json
from runtime.response.commands import CloseItem
from runtime.response.events import Resume
from runtime.response.items import ACTIONS, CALLS

GO_ON: Final = (
    "Your answer was interrupted right after its last character above. Go on exactly there: your next "
    "character follows it directly, in the middle of a word if need be. Repeat nothing, explain nothing, and "
    "do not mention the interruption."
)
"""What follows a half message that goes back to its model."""

WHAT_IS_LEFT: Final = (
    "Your turn was interrupted after your message above, which is whole and was delivered. Do only what you "
    "still meant to do in this turn, such as calling a function. Repeat nothing and do not mention the "
    "interruption."
)
"""What follows a whole message after which the call was interrupted."""

ECHO_LEAST: Final = 16
"""Characters from which on a half message that comes back whole is no coincidence."""

Delta = TextDelta | RefusalDelta | ArgumentsDelta | ReasoningDelta | SummaryDelta

_DELTA_OF: Final[Mapping[PartKind, type[Delta]]] = {
    "output_text": TextDelta,
    "refusal": RefusalDelta,
    "arguments": ArgumentsDelta,
    "reasoning_text": ReasoningDelta,
    "summary_text": SummaryDelta,
}


@dataclass(frozen=True, slots=True)
class Said:
    """One output item that is recorded of an interrupted call."""

    kind: str
    item: Mapping[str, JSON]
    """In the Responses API's shape, for the model's context."""
    texts: Mapping[type[Delta], str]
    """Its content by kind; where it was split means nothing."""
    open: bool = False
    """Whether it was still open."""
    name: str = ""
    """Of a call."""
    action: JSON = None
    """Of a shell or patch call."""


def said_of(state: ResponseState) -> list[Said]:
    """What is recorded of the current call, but for what it worded anew already."""
    if state.call is None:
        return []
    finished = state.context_items[state.call.first_item :]
    said = [_finished(item) for item in finished if item["status"] == "completed"]
    return said if state.open_item is None else [*said, _open(state.open_item)]


def _finished(item: Mapping[str, JSON]) -> Said:
    texts: dict[type[Delta], str] = {}
    for part in (*item.get("content", ()), *item.get("summary", ())):
        kind = _DELTA_OF[part["type"]]
        texts[kind] = texts.get(kind, "") + str(part.get("text") or part.get("refusal") or "")
    if item["type"] == "function_call":
        texts[ArgumentsDelta] = item["arguments"]
    elif item["type"] == "custom_tool_call":
        texts[ArgumentsDelta] = item["input"]
    action = item.get(ACTIONS.get(item["type"], ""))
    return Said(item["type"], item, texts, name=item.get("name", ""), action=action)


def _open(item: OpenItem) -> Said:
    texts: dict[type[Delta], str] = {}
    for part in item.parts:
        kind = _DELTA_OF[part.kind]
        texts[kind] = texts.get(kind, "") + part.text
    json = item_json(item, "incomplete")
    return Said(item.kind, json, texts, open=True, name=item.name, action=item.action)


class Diverged(Exception):
    """The model words anew what it is on record to have said otherwise."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a further attempt asks, and how its answer is read."""

    resume: Resume
    seam: Seam
    items: Sequence[Mapping[str, JSON]] = ()
    """What follows the context in the request."""


def plan(said: Sequence[Said], mode: Literal["prompt", "repeat"], *, first: bool = False) -> Plan:
    """How a call goes on of which `said` is recorded; `first` where it was never begun.

    A model hears of its function calls only together with their outputs, so `prompt` cannot tell it of those
    that stand: it is asked for the whole turn again, as `repeat` does.
    """
    if not said:
        return Plan("first" if first else "again", Seam())
    if mode == "repeat" or has_calls(said):
        return Plan("repeat", Seam(said))
    *whole, last = said
    if not last.open:
        return Plan("prompt", Seam(), _told(said, WHAT_IS_LEFT))
    if last.kind != "message":
        return Plan("prompt", Seam([last]), _told(whole, WHAT_IS_LEFT))
    if not any(last.texts.values()):
        return Plan("prompt", Seam(goes_on=True), _told(whole, WHAT_IS_LEFT))
    return Plan("prompt", Seam(goes_on=True, half=last), _told(said, GO_ON))


def _is_long(said: Said) -> bool:
    return sum(map(len, said.texts.values())) >= ECHO_LEAST


def has_calls(said: Sequence[Said]) -> bool:
    """Whether a function call among them is whole."""
    return any(one.kind in CALLS and not one.open for one in said)


def _told(said: Sequence[Said], instruction: str) -> Sequence[Mapping[str, JSON]]:
    items = [one.item for one in said]
    if said and said[-1].kind == "message":
        # A user's message, because many chat templates refuse a system message anywhere but in front.
        content = [{"type": "input_text", "text": instruction}]
        items.append({"type": "message", "role": "user", "content": content})
    return items


class _Expected:
    """The rest of one recorded item, while a model repeats it."""

    def __init__(self, said: Said) -> None:
        self.said = said
        self.heard: list[ModelEvent] = []
        """What was held back of the new item."""
        self.rethinks = False
        """Whether the model thinks anew before it says the item again."""
        self._at: dict[type[Delta], int] = {kind: 0 for kind, text in said.texts.items() if text}

    @property
    def is_repeated(self) -> bool:
        """Whether all of it was heard again."""
        return not self._at

    def hear(self, delta: Delta) -> Delta | None:
        """Compare; what `delta` says beyond the record is returned.  Raises `Diverged`."""
        kind = type(delta)
        recorded, at = self.said.texts.get(kind, ""), self._at.get(kind)
        if at is None:
            at = len(recorded)
        if recorded.startswith(delta.text, at):
            self._move(kind, at + len(delta.text))
            return None
        if not delta.text.startswith(recorded[at:]):
            raise Diverged
        self._move(kind, len(recorded))
        if self._at or not self.said.open:
            raise Diverged
        more = delta.text[len(recorded) - at :]
        return SummaryDelta(more, delta.index) if isinstance(delta, SummaryDelta) else kind(more)

    def _move(self, kind: type[Delta], to: int) -> None:
        if to < len(self.said.texts.get(kind, "")):
            self._at[kind] = to
        else:
            self._at.pop(kind, None)


class Seam:
    """Fits the events of a further attempt to what is recorded of its call.

    `expected` are the recorded items that the answer should repeat; only the last may be open.  With
    `goes_on` the open message goes on with whatever the model says next, but for all of `half`, what is
    recorded of it: a model that says that first does not go on but begins again.  Past the seam everything
    passes unchanged.
    """

    def __init__(
        self, expected: Sequence[Said] = (), *, goes_on: bool = False, half: Said | None = None
    ) -> None:
        self._expected = [_Expected(said) for said in expected]
        self._goes_on = goes_on
        self._half = half if half is not None and _is_long(half) else None
        self._echo: _Expected | None = None

    @property
    def passed(self) -> bool:
        """Whether the new words have reached what was not said before."""
        return not self._expected and not self._goes_on and self._echo is None

    def fit(self, events: Sequence[ModelEvent]) -> list[ModelEvent | CloseItem]:
        """What of `events` is new.  Raises `Diverged` where a message or a finished item is worded anew."""
        if self.passed:
            return list(events)
        fitted: list[ModelEvent | CloseItem] = []
        for event in events:
            if self.passed or isinstance(event, CallStarted):
                fitted.append(event)
            elif self._expected:
                fitted += self._repeat(event)
            elif self._echo is not None:
                fitted += self._echoed(self._echo, event)
            else:
                fitted += self._join(event)
        return fitted

    def _join(self, event: ModelEvent) -> list[ModelEvent]:
        """Wait for the first words that can go on in the open message."""
        match event:
            case ItemOpened(kind="message"):
                self._goes_on = False
                self._echo = _Expected(self._half) if self._half is not None else None
                return []
            case ItemOpened(kind="reasoning"):
                # Only one item can be open, and this one thinks about going on: it is not part of the answer.
                return []
            case ItemOpened():
                self._goes_on = False
                return [ItemClosed(), event]
            case CallEnded(finish="stop" | "tool_calls"):
                self._goes_on = False
                return [ItemClosed(), event]
            case CallEnded():
                self._goes_on = False
                return [event]
            case _:
                return []  # Part of a thought that is skipped.

    def _echoed(self, echo: _Expected, event: ModelEvent) -> list[ModelEvent]:
        """Hold words back while they may be all of the half message once more; else they go on in it."""
        echo.heard.append(event)
        if isinstance(event, TextDelta | RefusalDelta):
            try:
                more = echo.hear(event)
            except Diverged:
                pass
            else:
                if more is not None or echo.is_repeated:
                    self._echo = None
                return [more] if more is not None else []
        self._echo = None
        return echo.heard

    def _repeat(self, event: ModelEvent) -> list[ModelEvent | CloseItem]:
        """Hold back what repeats the record."""
        expected = self._expected[0]
        expected.heard.append(event)
        match event:
            case ItemOpened(kind="reasoning") if expected.said.open and expected.said.kind in CALLS:
                expected.rethinks = True
                return []
            case ItemClosed() if expected.rethinks:
                expected.rethinks = False
                return []
            case ReasoningDelta() | SummaryDelta() if expected.rethinks:
                return []
            case ItemOpened(kind=kind, name=name, action=action):
                said = expected.said
                if (kind, name, action) != (said.kind, said.name, said.action):
                    return self._differs()
            case ItemClosed():
                if not expected.is_repeated:
                    return self._differs()
                del self._expected[0]
                return []
            case TextDelta() | RefusalDelta() | ArgumentsDelta() | ReasoningDelta() | SummaryDelta():
                try:
                    more = expected.hear(event)
                except Diverged:
                    return self._differs()
                if more is not None:
                    self._expected.clear()
                    return [more]
            case _:
                return self._differs()
        if expected.said.open and expected.is_repeated:
            # Past the last recorded word everything is new.
            self._expected.clear()
        return []

    def _differs(self) -> list[ModelEvent | CloseItem]:
        said, anew = self._expected[0].said, self._expected[0].heard
        if not said.open or said.kind == "message":
            raise Diverged
        # Nobody has used a half function call or half a thought: the whole one takes its place, and with it
        # what was thought before it.
        self._expected.clear()
        return [CloseItem(), *anew]
