"""Where a model's new words join its old ones: content is compared, not chunks (invariant 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.model import (
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
    Usage,
)
from runtime.response.commands import CloseItem
from runtime.resume import GO_ON, WHAT_IS_LEFT, Delta, Diverged, Said, Seam, plan

ENDED = CallEnded("stop", Usage())
PART: Mapping[str, type[Delta]] = {
    "message": TextDelta,
    "function_call": ArgumentsDelta,
    "reasoning": ReasoningDelta,
}


def said(kind: str, text: str, *, open: bool = False) -> Said:
    return Said(
        kind, {"type": kind}, {PART[kind]: text}, open=open, name="f" if kind == "function_call" else ""
    )


def opened(kind: str) -> ItemOpened:
    return ItemOpened(kind, name="f" if kind == "function_call" else "", call_id="anew")  # type: ignore[arg-type]  # one of three


def deltas(kind: str, text: str, cuts: Sequence[int]) -> list[ModelEvent]:
    """`text`, cut at these places."""
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [PART[kind](text[start:end]) for start, end in pairwise(edges)]


def fit(seam: Seam, events: Sequence[ModelEvent], reads: Sequence[int]) -> list[ModelEvent | CloseItem]:
    """What passes the seam of events that arrive in reads of these sizes."""
    fitted: list[ModelEvent | CloseItem] = []
    rest = list(events)
    for size in (*reads, len(rest)):
        fitted += seam.fit(rest[:size])
        rest = rest[size:]
    return fitted


def text_of(events: Sequence[ModelEvent | CloseItem]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


CUTS = st.lists(st.integers(0, 30), max_size=5)
KINDS = st.sampled_from(["message", "function_call", "reasoning"])


@given(kind=KINDS, text=st.text("ab ", max_size=20), at=st.integers(0, 20), cuts=CUTS, reads=CUTS)
def test_what_is_repeated_is_held_back_and_the_rest_goes_on(
    kind: str, text: str, at: int, cuts: list[int], reads: list[int]
) -> None:
    """Finished items before it included, whichever way the texts are split."""
    seam = Seam([said("message", "Before."), said(kind, text[:at], open=True)])
    new = [CallStarted(None, ""), opened("message"), *deltas("message", "Before.", cuts), ItemClosed()]
    fitted = fit(seam, [*new, opened(kind), *deltas(kind, text, cuts), ItemClosed(), ENDED], reads)
    assert text_of(fitted) == text[at:]
    assert not any(isinstance(event, ItemOpened | CloseItem) for event in fitted)
    assert fitted[-2:] == [ItemClosed(), ENDED]


@given(kind=st.sampled_from(["function_call", "reasoning"]), cuts=CUTS, reads=CUTS)
def test_a_half_call_or_thought_that_is_worded_anew_is_replaced_whole(
    kind: str, cuts: list[int], reads: list[int]
) -> None:
    seam = Seam([said(kind, "same, then old", open=True)])
    new = [opened(kind), *deltas(kind, "same, then new", cuts), ItemClosed(), ENDED]
    assert fit(seam, new, reads) == [CloseItem(), *new]


@pytest.mark.parametrize(
    ("recorded", "anew"),
    [
        ([said("message", "Hello", open=True)], [opened("message"), TextDelta("Hi")]),
        ([said("message", "Hello", open=True)], [opened("message"), TextDelta("Hell"), ItemClosed()]),
        ([said("message", "Hello", open=True)], [opened("message"), RefusalDelta("Hello")]),
        ([said("message", "Hello", open=True)], [opened("function_call")]),
        ([said("message", "Hello", open=True)], [ENDED]),
        ([said("message", "Hello")], [opened("message"), TextDelta("Hello you")]),
        ([said("message", "Hello")], [opened("message"), TextDelta("Hello"), RefusalDelta("No")]),
        ([said("reasoning", "Hm")], [opened("reasoning"), ReasoningDelta("Ha")]),
    ],
)
def test_a_message_or_a_finished_item_that_is_worded_anew_is_told(
    recorded: list[Said], anew: list[ModelEvent]
) -> None:
    with pytest.raises(Diverged):
        Seam(recorded).fit(anew)


def test_a_summary_goes_on_in_the_part_it_was_interrupted_in() -> None:
    texts: dict[type[Delta], str] = {ReasoningDelta: "Hm.", SummaryDelta: "First. Sec"}
    seam = Seam([Said("reasoning", {}, texts, open=True)])
    thinks: list[ModelEvent] = [opened("reasoning"), ReasoningDelta("Hm.")]
    assert seam.fit([*thinks, SummaryDelta("First. "), SummaryDelta("Second.", 1)]) == [
        SummaryDelta("ond.", 1)
    ]


def test_a_model_that_thinks_anew_before_it_repeats_its_call_has_not_changed_its_mind() -> None:
    seam = Seam([said("function_call", '{"a', open=True)])
    thinks: list[ModelEvent] = [opened("reasoning"), ReasoningDelta("Again."), ItemClosed()]
    again: list[ModelEvent] = [*thinks, opened("function_call"), ArgumentsDelta('{"a":1}')]
    assert seam.fit(again) == [ArgumentsDelta('":1}')]
    other = Seam([said("function_call", '{"a', open=True)])
    anew: list[ModelEvent] = [*thinks, opened("function_call"), ArgumentsDelta('{"b":1}')]
    assert other.fit(anew) == [CloseItem(), *anew]


def test_a_message_that_goes_on_takes_the_first_words_and_no_new_item() -> None:
    thinks: list[ModelEvent] = [opened("reasoning"), ReasoningDelta("Where was I?"), ItemClosed()]
    words: list[ModelEvent] = [opened("message"), TextDelta("you"), ItemClosed(), ENDED]
    assert Seam(goes_on=True).fit([*thinks, *words]) == [
        TextDelta("you"),
        ItemClosed(),
        ENDED,
    ]
    assert Seam(goes_on=True).fit([ENDED]) == [ItemClosed(), ENDED], "it had nothing to add"
    cut = CallEnded("length", Usage())
    assert Seam(goes_on=True).fit([cut]) == [cut], "what was cut short stays incomplete"


@given(text=st.text("ab ", max_size=20), more=st.text("ab ", max_size=20), cuts=CUTS, reads=CUTS)
def test_a_model_that_begins_again_though_it_was_told_to_go_on_says_nothing_twice(
    text: str, more: str, cuts: list[int], reads: list[int]
) -> None:
    """Whichever way the texts are split; what only begins like the half message is new."""
    half = "Once upon a time, " + text
    for words, left in ((half + more, more), ("Once upon a TIME" + more, "Once upon a TIME" + more)):
        seam = Seam(goes_on=True, half=said("message", half, open=True))
        new = [CallStarted(None, ""), opened("message"), *deltas("message", words, cuts), ItemClosed(), ENDED]
        fitted = fit(seam, new, reads)
        assert text_of(fitted) == left
        assert [event for event in fitted if not isinstance(event, Delta)] == [new[0], ItemClosed(), ENDED]


def test_a_short_half_message_may_be_said_again_for_good_reason() -> None:
    words: list[ModelEvent] = [opened("message"), TextDelta("ha"), ItemClosed(), ENDED]
    assert text_of(Seam(goes_on=True, half=said("message", "ha", open=True)).fit(words)) == "ha"


def test_what_the_model_is_told_of_what_it_said() -> None:
    whole, half = said("message", "Before."), said("message", "Hel", open=True)
    thought, call = said("reasoning", "Hm."), said("function_call", "{}")
    half_call = said("function_call", '{"', open=True)

    def told(recorded: Sequence[Said], mode: str = "prompt") -> list[str]:
        items = plan(recorded, mode).items  # type: ignore[arg-type]  # one of the two
        return [item["content"][0]["text"] if "content" in item else item["type"] for item in items]

    assert told([thought, half]) == ["reasoning", "message", GO_ON]
    assert told([whole]) == told([whole, half_call]) == ["message", WHAT_IS_LEFT]
    assert told([thought, half_call]) == ["reasoning"]
    assert told([half_call]) == told([call, half_call]) == told([whole, half], "repeat") == []
    assert plan([], "prompt", first=True).resume == "first"
    assert plan([], "repeat").resume == "again"
    assert plan([call, half_call], "prompt").resume == "repeat", (
        "a model hears of calls only with their outputs"
    )
