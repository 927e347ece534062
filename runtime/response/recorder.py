"""A record's events become a batch of frames.  Actor, replay and relay share this: all show the same."""

from __future__ import annotations

from collections.abc import Iterable

from eventstore.events import Batch, Record, Recorded
from runtime.response.events import Event
from runtime.response.state import ResponseState, step


def batch(
    state: ResponseState, events: Iterable[Event], recorded: Recorded | Record
) -> tuple[Batch, ResponseState]:
    """What one commit showed, as SSE frames, and the state after it.  `state` is the fold before it."""
    after = state
    frames: list[bytes] = []
    for event in events:
        wire, after = step(after, event)
        frames += [shown.frame for shown in wire]
    known = after if after.created is not None else state  # Of an erased response nothing is left.
    made = Batch(
        channel=recorded.stream,
        first=state.next_number,
        count=len(frames),
        frames=tuple(frames),
        version=recorded.last_version,
        position=recorded.position,
        tenant=known.project if known.created is not None else "",
        last=after.is_over,
        transient=known.created is not None and not known.request.store,
    )
    return made, after
