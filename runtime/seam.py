"""Where new words of an interrupted model call join the old ones.  Pure.

A `Seam` fits what a further attempt says to what is recorded of its call, so that followers see one answer:
nothing twice, nothing missing.  `runtime.resume` decides what is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final, TypeVar

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
from runtime.response.commands import CloseItem
from runtime.response.items import CALLS

ECHO_LEAST: Final = 16
"""Characters from which on a half message that comes back whole is no coincidence, whatever it says."""

Delta = TextDelta | RefusalDelta | ArgumentsDelta | ReasoningDelta | SummaryDelta
D = TypeVar("D", bound=Delta)


class Diverged(Exception):
    """The model does not go on in the way in which it was asked to."""


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


@dataclass(frozen=True, slots=True)
class Half:
    """A message that was broken off, and how its model is told of it: without the white space at its end.

    Some chat templates trim that, and models go on badly behind it.  Without it everybody goes on at the same
    place, and what of it comes back can be told from what is new.
    """

    told: str
    space: str = ""
    """The white space at its end, which is recorded and shown but not told."""
    continues: bool = False
    """Whether its server continues the very message, so that only what is long can be an echo."""

    @staticmethod
    def of(said: Said) -> Half:
        """The half that an open message is."""
        text = "".join(said.texts.values())
        told = text.rstrip()
        return Half(told, text[len(told) :])

    @property
    def may_come_back(self) -> bool:
        """Whether a model that says all of it once more is taken to begin again.

        Of little it may be the word that goes on ("1" and "1"); a word is seldom its own beginning twice.
        """
        return len(self.told) >= ECHO_LEAST or (not self.continues and any(map(str.isalpha, self.told)))


def _without(delta: D, chars: int) -> D:
    """The delta behind its first characters; which of its probabilities are theirs, nobody can tell."""
    if not chars:
        return delta
    rest = replace(delta, text=delta.text[chars:])
    return replace(rest, logprobs=()) if isinstance(rest, TextDelta) else rest


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
        return _without(delta, len(recorded) - at)

    def _move(self, kind: type[Delta], to: int) -> None:
        if to < len(self.said.texts.get(kind, "")):
            self._at[kind] = to
        else:
            self._at.pop(kind, None)


class _Joining:
    """Lets an open message go on: takes away what the model says of its half once more."""

    def __init__(self, half: Half) -> None:
        self.over = False
        self._half = half
        self._echo = half.told if half.may_come_back else ""
        """What may come back before anything new does; nothing once that is settled."""
        self._space = half.space
        """The recorded white space with which new words may begin once more."""
        self._opened = False
        self._thought = False
        self._heard: list[ModelEvent] = []
        self._text = ""

    def hear(self, event: ModelEvent) -> list[ModelEvent]:
        """What of `event`, and of those before it, is new.  Raises `Diverged`."""
        if not self._opened:
            return self._before(event)
        if isinstance(event, TextDelta | RefusalDelta):
            return self._words(event)
        self.over = True
        return [*self._all_heard(), event]

    def _before(self, event: ModelEvent) -> list[ModelEvent]:
        """Wait for the first words that can go on in the open message."""
        match event:
            case ItemOpened(kind="message"):
                self._opened = True
                return []
            case ItemOpened(kind="reasoning"):
                # Only one item can be open, and this one thinks about going on: it is not part of the answer.
                self._thought = True
                return []
            case CallEnded(finish="stop" | "tool_calls") if self._thought and self._half.continues:
                # A server that parses reasoning took the words that go on for thought.
                raise Diverged
            case ItemOpened() | CallEnded(finish="stop" | "tool_calls"):
                self.over = True
                return [ItemClosed(), event]
            case CallEnded():
                self.over = True
                return [event]
            case _:
                return []  # Part of a thought that is skipped.

    def _words(self, delta: TextDelta | RefusalDelta) -> list[ModelEvent]:
        if not self._echo:
            return self._new(delta)
        self._heard.append(delta)
        self._text += delta.text
        text = self._text.lstrip()
        echo = self._echo.lstrip()
        if len(text) < len(echo) and echo.startswith(text):
            return []
        if not text.startswith(echo):
            return self._all_heard()
        self._heard, self._echo = [], ""
        return self._new(_without(delta, len(delta.text) - (len(text) - len(echo))))

    def _all_heard(self) -> list[ModelEvent]:
        """What was held back is new after all."""
        heard, self._heard, self._echo = self._heard, [], ""
        return [new for one in heard if isinstance(one, TextDelta | RefusalDelta) for new in self._new(one)]

    def _new(self, delta: TextDelta | RefusalDelta) -> list[ModelEvent]:
        """New words, without the white space that is there already."""
        pairs = zip(self._space, delta.text, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        new = _without(delta, same)
        self._space = "" if new.text else self._space[same:]
        self.over = not self._space and not self._echo
        return [new] if new.text else []


class Seam:
    """Fits the events of a further attempt to what is recorded of its call.

    `expected` are the recorded items that the answer should repeat; only the last may be open.  With `half`
    the open message goes on with whatever the model says next.  Past the seam everything passes unchanged.
    """

    def __init__(self, expected: Sequence[Said] = (), *, half: Half | None = None) -> None:
        self._expected = [_Expected(said) for said in expected]
        self._joining = _Joining(half) if half is not None else None

    @property
    def passed(self) -> bool:
        """Whether the new words have reached what was not said before."""
        return not self._expected and self._joining is None

    def fit(self, events: Sequence[ModelEvent]) -> list[ModelEvent | CloseItem]:
        """What of `events` is new.

        Raises `Diverged` where a message or a finished item is worded anew, or words were taken for thought.
        """
        if self.passed:
            return list(events)
        fitted: list[ModelEvent | CloseItem] = []
        for event in events:
            if self.passed or isinstance(event, CallStarted):
                fitted.append(event)
            elif self._expected:
                fitted += self._repeat(event)
            elif self._joining is not None:
                fitted += self._joining.hear(event)
                if self._joining.over:
                    self._joining = None
        return fitted

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
