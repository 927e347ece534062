"""What was recorded of a conversation folds to the same state, for ever."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.golden.conversation_scenarios import CONVERSATIONS, recorded, state_json
from tests.golden.write_logs import CONVERSATION_LOGS, RELEASE, log_lines, read_line
from tests.unit.conversation.kit import ID

RECORDED = sorted(CONVERSATION_LOGS.glob("*/*.log.jsonl"))


@pytest.mark.parametrize("log", RECORDED, ids=lambda path: f"{path.parent.name}/{path.name.split('.')[0]}")
def test_a_recorded_log_folds_to_the_same_state(log: Path) -> None:
    records = [read_line(line, ID) for line in log.read_bytes().splitlines()]
    name = log.name.removesuffix(".log.jsonl")
    was = orjson.loads((log.parent / f"{name}.json").read_bytes())
    is_ = orjson.loads(state_json(records))
    assert {field: is_[field] for field in was} == was, "later releases may keep more, and nothing else"


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_todays_decisions_write_the_recorded_bytes(name: str) -> None:
    file = CONVERSATION_LOGS / RELEASE / f"{name}.log.jsonl"
    assert log_lines(recorded(CONVERSATIONS[name])) == file.read_bytes()
