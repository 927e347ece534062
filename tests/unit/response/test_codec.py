"""Events to bytes and back: the names and shapes are a file format."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eventstore.events import ERASED, Record
from runtime.response import events as e
from runtime.response.codec import decode, encode
from runtime.response.errors import UnknownEvent
from runtime.response.request import ResponseRequest
from tests.golden.scenarios import EVERYTHING, SCENARIOS
from tests.running import RESPONSE_ID, Running

RECORD = Record(1, RESPONSE_ID, 4, ("item_ended",), 1, 1, 0, b"", b"", (b"{}",))


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_recorded_reads_back_the_same(name: str) -> None:
    running = Running()
    running.obey(*SCENARIOS[name])
    assert [event for record in running.records for event in decode(record)] == running.events


def test_deltas_cost_little_more_than_their_text() -> None:
    assert encode(e.TextAppended(("Hel", "lo"))).data == b'{"d":["Hel","lo"]}'
    assert encode(e.ItemEnded()).data == b"{}"


def test_a_tombstone_has_the_logs_own_name() -> None:
    assert encode(e.Erased(1, "retention", "30 days")).type == ERASED


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (replace(RECORD, types=("item_paused",)), "item_paused"),
        (replace(RECORD, schema=2), "schema 2"),
        (replace(RECORD, payload=(b'{"colour":"red"}',)), "colour"),
    ],
)
def test_what_a_newer_version_wrote_is_refused_and_named(record: Record, named: str) -> None:
    """Never skipped: the state would be wrong from there on."""
    with pytest.raises(UnknownEvent, match=named) as refused:
        decode(record)
    assert (refused.value.stream, refused.value.version) == (RESPONSE_ID, 4)


def test_an_erased_record_has_no_events() -> None:
    assert decode(replace(RECORD, payload=None)) == []


def test_a_request_is_recorded_without_its_defaults_and_reads_back() -> None:
    assert ResponseRequest(model="m").to_json() == {"model": "m"}
    assert ResponseRequest.from_json(EVERYTHING.to_json()) == EVERYTHING
