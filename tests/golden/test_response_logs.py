"""What was recorded replays to the same bytes, for ever (DESIGN.md, invariant 3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.response.codec import decode
from runtime.response.events import Erased
from runtime.response.snapshot import snapshot_bytes
from runtime.response.state import INITIAL, step
from tests.golden.scenarios import SCENARIOS
from tests.golden.write_logs import LOGS, RELEASE, log_lines, read_line, run
from tests.running import RESPONSE_ID

RECORDED = sorted(LOGS.glob("*/*.log.jsonl"))


@pytest.mark.parametrize("log", RECORDED, ids=lambda path: f"{path.parent.name}/{path.name.split('.')[0]}")
def test_a_recorded_log_shows_the_same_bytes(log: Path) -> None:
    """Frames, final snapshot and recorded digest are those of the day on which it was written."""
    state, wire, digest = INITIAL, [], None
    for line in log.read_bytes().splitlines():
        for event in decode(read_line(line, RESPONSE_ID)):
            shown, state = step(state, event)
            wire += shown
            digest = getattr(event, "shown", digest)
            if not isinstance(event, Erased):
                before_erasure = state
    name = log.name.removesuffix(".log.jsonl")
    assert b"".join(event.frame for event in wire) == (log.parent / f"{name}.sse").read_bytes()
    assert snapshot_bytes(wire[-1]) == (log.parent / f"{name}.json").read_bytes()
    assert before_erasure.shown.digest == digest


@pytest.mark.parametrize("name", SCENARIOS)
def test_todays_decisions_write_the_recorded_bytes(name: str) -> None:
    """The payloads are a file format: what is written today is what this release's golden log holds."""
    recorded = LOGS / RELEASE / f"{name}.log.jsonl"
    assert log_lines(run(SCENARIOS[name]).records) == recorded.read_bytes()
