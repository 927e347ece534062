"""Whatever is cut wherever, however often and in whichever way it goes on: it reads as one (invariant 7).

The models here truly go on where they are told to, each call in small pieces that lie anew and, if they vary,
in words of its own: the letters tell which call said a word, the numbers tell which words are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.model import CallEnded, ItemClosed, ItemOpened, ModelEvent, ModelRequest, TextDelta, Usage
from runtime.response import events as e
from runtime.resume import GO_ON, WHAT_IS_LEFT
from tests import virtual_time
from tests.depth import examples
from tests.unit.actors.kit import (
    CrashingStore,
    ScriptedModel,
    Step,
    World,
    call_of,
    check_shown,
    create,
    in_reads,
    live_through,
    text_of,
    thought,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Speaker:
    """A model, and what it has to say."""

    text: str
    """Every word is a `w` and its number."""
    thinks: bool
    calls: int
    varies: bool
    sizes: tuple[int, ...]
    """Characters of its pieces, in turn."""

    def __call__(self, request: ModelRequest, number: int) -> Iterator[Step]:
        letter = LETTERS[number % len(LETTERS)] if self.varies else "w"
        asked, half = self._asked(request)
        events: list[ModelEvent] = []
        if self.thinks and asked == "all":
            events += thought(*self._pieces(f"thought {letter}, and more of it.", number))
        text = self.text.replace("w", letter)[len(half) :]
        if asked != "rest" and text:
            events += [ItemOpened("message"), *map(TextDelta, self._pieces(text, number)), ItemClosed()]
        for n in range(self.calls):
            arguments = self._pieces(f'{{"word":"{letter}","number":{n}}}', number)
            events += call_of(f"tool_{n}", *arguments, call_id=f"call_{number}_{n}")
        yield from in_reads([*events, CallEnded("stop", Usage(1, 1))], apart=0.01)

    def _asked(self, request: ModelRequest) -> tuple[str, str]:
        *_, before, last = request.items if len(request.items) > 1 else ({}, *request.items)
        wish = (last.get("content") or [{}])[0].get("text")
        if request.goes_on:
            return "half", str(wish)
        if wish == GO_ON:
            return "half", str(before["content"][0]["text"])
        return ("rest", "") if wish == WHAT_IS_LEFT else ("all", "")

    def _pieces(self, text: str, number: int) -> list[str]:
        pieces: list[str] = []
        at = 0
        while at < len(text):
            size = self.sizes[(len(pieces) + number) % len(self.sizes)]
            pieces.append(text[at : at + size])
            at += size
        return pieces


SPACES = st.sampled_from([" ", "\n", "  ", "\n\n", " \n "])
SPEAKERS = st.builds(
    Speaker,
    text=st.lists(SPACES, max_size=4).map(lambda all: "".join(f"w{n}{s}" for n, s in enumerate(all)) + "w9"),
    thinks=st.booleans(),
    calls=st.integers(0, 2),
    varies=st.booleans(),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
)
CRASHES = st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=4)
"""The append at which each host dies, and whether it still happens."""


@settings(max_examples=examples(150), deadline=None)
@given(speaker=SPEAKERS, crashes=CRASHES, resume=st.sampled_from(["prefix", "prompt", "repeat"]))
def test_an_answer_that_is_interrupted_reads_as_one(
    speaker: Speaker, crashes: Sequence[tuple[int, bool]], resume: str
) -> None:
    async def scenario() -> None:
        world = World(ScriptedModel(speaker))
        stores = [CrashingStore(world.store, at, committed) for at, committed in crashes]
        shown = await live_through(world, create(resume=resume), [*stores, None])
        final = check_shown(shown)
        assert final["status"] == "completed"
        assert shown == await world.shown(), "whoever followed live saw what a replay shows"
        assert re.sub("[a-z]", "w", text_of(shown)) == speaker.text, "no character is missing, twice or moved"
        _check_items(speaker, final["output"])
        events = await world.events()
        calls = [event for event in events if isinstance(event, e.ModelCallStarted)]
        assert [call.attempt for call in calls] == list(range(len(calls)))
        died = sum(store.died.is_set() for store in stores)
        assert len(calls) <= len(world.model.requests) <= 1 + died + (resume == "repeat" and speaker.varies)

    virtual_time.run(scenario())


def _check_items(speaker: Speaker, output: Sequence[Any]) -> None:
    whole = [item for item in output if item["status"] == "completed"]
    assert [item["type"] for item in whole].count("message") == 1, "the same item went on"
    calls = [item for item in whole if item["type"] == "function_call"]
    for call in calls:
        assert re.fullmatch(r'\{"word":"[a-z]","number":\d\}', call["arguments"]), "half a call is no call"
    names = [call["name"] for call in calls]
    assert names == sorted(set(names)), "nothing is called twice"
    if not speaker.varies:
        assert names == [f"tool_{n}" for n in range(speaker.calls)]
        assert whole == list(output), "what repeats goes on, and nothing is left half"
