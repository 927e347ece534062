"""Whatever a test makes a response show is held against both schemas of the Responses API."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from runtime.response import state
from runtime.response.events import Event
from runtime.response.projection import project
from runtime.response.state import ResponseState
from runtime.response.wire import WireEvent
from tests.conformance import check_event

ALIKE_MAX = 20
"""Deltas that are checked of each test: they differ in their words only."""


@pytest.fixture(autouse=True)
def _every_wire_event_conforms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`step` is the one place where wire events are made, and looks `project` up here."""
    wrong: list[str] = []
    deltas = 0

    def checked(before: ResponseState, event: Event) -> list[WireEvent]:
        nonlocal deltas
        wire = project(before, event)
        for shown in wire:
            deltas += shown.type.endswith(".delta")
            if deltas <= ALIKE_MAX or not shown.type.endswith(".delta"):
                try:
                    check_event(shown.data)
                except (ValueError, AssertionError) as error:
                    wrong.append(f"{shown.data[:2000]!r}: {error}")
        return wire

    monkeypatch.setattr(state, "project", checked)
    yield
    assert wrong == [], orjson.dumps(wrong, option=orjson.OPT_INDENT_2).decode()
