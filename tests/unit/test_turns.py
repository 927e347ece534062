"""Systems under measurement take turns: what adds up, and who is left out."""

from __future__ import annotations

from collections import Counter

import psutil
import pytest

from bench import turns
from bench.load import Figures, Load, WrongAnswer
from bench.systems import System


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each address had its turn; the second answer of `bad` is wrong."""
    counted: Counter[str] = Counter()

    async def drive(url: str, load: Load, expected: str | None) -> Figures:
        counted[url] += 1
        if url == "bad" and counted[url] == 2:
            raise ExceptionGroup("its clients", [WrongAnswer("six deltas for four")])
        return Figures(10, load.seconds, 10 * load.deltas, [0.1] * 10, [0.1] * 10, [])

    monkeypatch.setattr(turns, "drive", drive)
    return counted


def system(url: str, *, peer: bool = False) -> System:
    return System(url, url, psutil.Process(), "fake", peer=peer)


LOAD = Load("any", "", clients=1, deltas=4, seconds=3 * turns.SLICE_S)


def test_a_load_is_as_many_slices_as_make_up_its_seconds(asked: Counter[str]) -> None:
    one, other = system("one"), system("other")
    reached = turns.in_turns([one, other], LOAD)
    assert asked == {"one": 3, "other": 3}
    assert [*reached] == [one, other]
    assert (reached[one].figures.streams, reached[one].figures.seconds) == (30, LOAD.seconds)
    assert len(reached[one].figures.whole) == 30


def test_a_peer_that_answers_wrongly_is_told_and_left_out(
    asked: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    reached = turns.in_turns([system("one"), system("bad", peer=True)], LOAD)
    assert [each.name for each in reached] == ["one"]
    assert asked == {"one": 3, "bad": 2}
    assert "bad: left out, six deltas for four" in capsys.readouterr().out


def test_our_own_wrong_answer_ends_the_bench(asked: Counter[str]) -> None:
    with pytest.raises(ExceptionGroup, match="its clients"):
        turns.in_turns([system("one"), system("bad")], LOAD)
    assert asked["bad"] == 2
