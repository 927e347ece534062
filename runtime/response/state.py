"""The fold: `evolve(state, event)` never refuses, because it happened.

`step` is the one place where an event's wire events and its next state are made, so that what is counted and
digested is exactly what is shown.
"""

from __future__ import annotations

from collections.abc import Iterable

from runtime.response.aggregate import INITIAL, Call, OpenItem, Part, ResponseState, Status, apply
from runtime.response.events import Event
from runtime.response.projection import project
from runtime.response.wire import WireEvent

__all__ = [
    "INITIAL",
    "Call",
    "OpenItem",
    "Part",
    "ResponseState",
    "Status",
    "evolve",
    "fold",
    "step",
]


def step(state: ResponseState, event: Event) -> tuple[list[WireEvent], ResponseState]:
    """What `event` shows, and the state after it."""
    wire = project(state, event)
    after = apply(state, event)
    if wire:
        after = after._replace(shown=state.shown.plus(wire))
    return wire, after


def evolve(state: ResponseState, event: Event) -> ResponseState:
    """The state after `event`."""
    return step(state, event)[1]


def fold(events: Iterable[Event], state: ResponseState = INITIAL) -> ResponseState:
    """The state after all of them."""
    for event in events:
        state = evolve(state, event)
    return state
