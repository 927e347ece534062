"""Where a model's new words join its old ones: content is compared, not chunks (invariant 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from runtime.resume import GO_ON, WHAT_IS_LEFT, plan
from runtime.seam import ECHO_LEAST, Delta, Diverged, Half, Said, Seam

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
    assert Seam(half=Half("Hi,")).fit([*thinks, *words]) == [
        TextDelta("you"),
        ItemClosed(),
        ENDED,
    ]
    assert Seam(half=Half("Hi.")).fit([ENDED]) == [ItemClosed(), ENDED], "it had nothing to add"
    cut = CallEnded("length", Usage())
    assert Seam(half=Half("Hi,")).fit([cut]) == [cut], "what was cut short stays incomplete"


WORDS = st.lists(st.sampled_from([" ", "\n", "  ", "\n\n", " \n ", "-"]), min_size=1, max_size=8).map(
    lambda between: "".join(f"w{n}{space}" for n, space in enumerate(between)) + "end"
)
"""Texts in which every word is its own, with all kinds of white space between them."""


@given(text=WORDS, at=st.integers(0, 40), echoes=st.booleans(), cuts=CUTS, reads=CUTS)
def test_a_server_that_continues_joins_at_every_character(
    text: str, at: int, echoes: bool, cuts: list[int], reads: list[int]
) -> None:
    """Whether it says the half once more or not, white space is neither doubled nor lost."""
    half = replace(Half.of(said("message", text[:at], open=True)), continues=True)
    assert half.told == half.told.rstrip()
    anew = text if echoes and len(half.told) >= ECHO_LEAST else text[len(half.told) :]
    new = [CallStarted(None, ""), opened("message"), *deltas("message", anew, cuts), ItemClosed(), ENDED]
    fitted = fit(Seam(half=half), new, reads)
    assert text_of(fitted) == text[at:]
    assert [event for event in fitted if not isinstance(event, Delta)] == [new[0], ItemClosed(), ENDED]


@given(text=WORDS, at=st.integers(1, 40), cuts=CUTS, reads=CUTS)
def test_a_model_that_begins_again_though_it_was_told_to_go_on_says_nothing_twice(
    text: str, at: int, cuts: list[int], reads: list[int]
) -> None:
    """However little was said, and whichever way the texts are split."""
    half = Half.of(said("message", text[:at], open=True))
    new = [CallStarted(None, ""), opened("message"), *deltas("message", text, cuts), ItemClosed(), ENDED]
    fitted = fit(Seam(half=half), new, reads)
    assert text_of(fitted) == text[at:]
    assert [event for event in fitted if not isinstance(event, Delta)] == [new[0], ItemClosed(), ENDED]


@pytest.mark.parametrize(
    ("half", "continues", "words", "more"),
    [
        ("Once upon a time", False, "Once upon a TIME", "Once upon a TIME"),  # It only begins like the half.
        ("Ha", False, "Ha, that", ", that"),
        ("Ha", True, "Ha, that", "Ha, that"),  # Who continues the message itself does not begin it again.
        ("1", False, "1", "1"),  # Eleven.
        ("---", False, "---|", "---|"),
        ("12345678901234567", False, "12345678901234567.8", ".8"),
        ("One, ", False, "two", "two"),  # The white space is there already.
        ("One, ", False, " two", "two"),
        ("One,\n", False, " two", " two"),
    ],
)
def test_what_counts_as_beginning_again(half: str, continues: bool, words: str, more: str) -> None:
    new: list[ModelEvent] = [opened("message"), TextDelta(words), ItemClosed(), ENDED]
    assert text_of(Seam(half=replace(Half.of(said("message", half)), continues=continues)).fit(new)) == more


def test_a_server_that_takes_the_words_for_thought_is_asked_in_another_way() -> None:
    """Some reasoning parsers take all for thought that comes before a certain mark."""
    thinks: list[ModelEvent] = [opened("reasoning"), ReasoningDelta(" you"), ItemClosed(), ENDED]
    with pytest.raises(Diverged):
        Seam(half=Half("Hello", continues=True)).fit(thinks)


def test_what_the_model_is_told_of_what_it_said() -> None:
    whole, half = said("message", "Before."), said("message", "Hel", open=True)
    thought, call = said("reasoning", "Hm."), said("function_call", "{}")
    half_call = said("function_call", '{"', open=True)

    def told(recorded: Sequence[Said], mode: str = "prompt") -> list[str]:
        items = plan(recorded, mode).items  # type: ignore[arg-type]  # one of the three
        return [item["content"][0]["text"] if "content" in item else item["type"] for item in items]

    assert told([thought, half]) == ["reasoning", "Hel", GO_ON]
    assert told([whole]) == told([whole, half_call]) == ["message", WHAT_IS_LEFT]
    assert told([thought, half_call]) == ["reasoning"]
    assert told([half_call]) == told([call, half_call]) == told([whole, half], "repeat") == []
    assert told([thought, half], "prefix") == ["reasoning", "Hel"]
    assert told([whole, half_call], "prefix") == ["message", WHAT_IS_LEFT], "half a call is asked for whole"
    assert told([said("message", "Hello, \n", open=True)], "prefix") == ["Hello,"]
    assert told([said("message", " \n", open=True)], "prefix") == [], "of nothing it is not told"
    refusal = Said("message", {"content": [{"text": "No"}]}, {RefusalDelta: "No"}, open=True)
    assert told([refusal], "prefix") == ["No", GO_ON]
    assert plan([], "prompt", first=True).resume == "first"
    assert plan([], "repeat").resume == "again"
    assert plan([call, half_call], "prompt").resume == "repeat", (
        "a model hears of calls only with their outputs"
    )
