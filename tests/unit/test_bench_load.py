"""The load generator knows a right answer from a wrong one, however the server frames it."""

from __future__ import annotations

import json

import pytest

from bench.load import DELTA, DONE, Load, Stream, WrongAnswer, check
from tests.fakes.script import words

LOAD = Load("test", "fake?deltas=4", clients=1, deltas=4, seconds=0)
SAID = words(4)
COMPLETED = "response.completed"


def told(*pieces: str, end: str = COMPLETED, first: int = 0) -> bytes:
    """A stream of these deltas."""
    events = [{"type": "response.output_text.delta", "delta": piece} for piece in pieces] + [{"type": end}]
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(events, first)]
    return b"".join(b"data: %b\n\n" % json.dumps(event, separators=(",", ":")).encode() for event in numbered)


def checked(body: bytes) -> None:
    check(body, Stream(0.0, deltas=body.count(DELTA)), LOAD, "".join(SAID), whole=True)


@pytest.mark.parametrize("done", [DONE, b""], ids=["with [DONE]", "without"])
def test_a_right_answer_passes(done: bytes) -> None:
    checked(told(*SAID) + done)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (told(*SAID, end="response.failed"), "has no end"),
        (told(*SAID, end=COMPLETED) + told("more", end="response.failed"), "has no end"),
        (told(*SAID)[:-1], "has no end"),
        (told(*SAID[:3]), "3 deltas instead of 4"),
        (told("apple", "0 har", "bor1 ", "brook", "2 isl", "e3"), "6 deltas instead of 4"),
        (told(*SAID[:3], "other"), "the text is"),
        (told(*SAID, first=1), "sequence numbers"),
    ],
)
def test_a_wrong_answer_does_not(body: bytes, why: str) -> None:
    with pytest.raises(WrongAnswer, match=why):
        checked(body)
