"""The table of goals: what it reads from the benches' rows, and what it says where there are none."""

from __future__ import annotations

import pytest

from bench.goals import GOALS, STORES, Goal, Rows, table
from bench.systems import ECHO, SHARED


def streams(gap_p99: float, system: str = SHARED) -> dict[str, object]:
    return {"bench": "streams", "system": system, "streams": 256, "gap_p99": gap_p99}


def soak(responses: int, hosts: float, nats: float) -> dict[str, object]:
    return {"bench": "soak", "responses": responses, "mib": {"hosts": hosts, "NATS": nats}}


def row_of(what: str, *rows: dict[str, object]) -> str:
    (goal,) = (goal for goal in GOALS if goal.what == what)
    return goal.row(Rows(rows))


def test_what_was_not_measured_is_told_as_such() -> None:
    told = table(Rows([])).splitlines()
    assert len(told) == 2 + len(GOALS)
    assert all("not measured" in row for row in told[2:])


def test_of_two_runs_the_last_counts() -> None:
    seen = streams(9.0), streams(1.5), streams(1.1, ECHO)
    told = row_of("256 streams at 50 deltas/s: gap p99, paces", *seen)
    assert told == "| 256 streams at 50 deltas/s: gap p99, paces | <= 2 | 1.5 | yes |"


def test_what_is_missed_says_by_how_much() -> None:
    told = row_of("256 streams at 50 deltas/s: gap p99, paces", streams(6.0))
    assert told.endswith("| 6 | missed by 3 x |")


def test_a_least_is_missed_from_below() -> None:
    goal = Goal("streams a second", 1_000, lambda rows: rows.one("per_s", "x"), least=True)
    assert goal.row(Rows([{"bench": "x", "per_s": 250}])).endswith("| >= 1,000 | 250 | missed by 4 x |")
    assert goal.row(Rows([{"bench": "x", "per_s": 1_200}])).endswith("| 1,200 | yes |")


def test_growth_is_told_from_the_first_loaded_row_and_without_nats() -> None:
    told = row_of(
        "growth from response 10,000 to 50,000, all but NATS, MiB",
        soak(0, 100.0, 30.0),
        soak(10_000, 150.0, 90.0),
        soak(50_000, 153.0, 200.0),
    )
    assert told.endswith("| 3 | yes |")


@pytest.mark.parametrize("store", STORES)
def test_a_large_log_counts_by_its_worst_question(store: str) -> None:
    asked = [
        {"bench": "log_size", "store": of, "question": question, "events": events, "ms": ms * slower}
        for question, small, large in (("read", 1.0, 1.1), ("list", 2.0, 5.0))
        for events, ms in ((100_000, small), (10_000_000, large))
        for of, slower in ((store, 1.0), ("another", events))
    ]
    told = row_of(f"{store}, 10,000,000 events beside 100,000: the worst question, times", *asked)
    assert told.endswith("| 2.5 | missed by 1.7 x |")
