"""A record's events become a batch of frames.  Actor, replay and relay share this: all show the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eventstore.events import Batch, Record, Recorded
from runtime.response.events import Event
from runtime.response.state import ResponseState, step


def batch(
    state: ResponseState, events: Iterable[Event], recorded: Recorded | Record
) -> tuple[Batch, ResponseState]:
    """What one commit showed, as SSE frames, and the state after it.  `state` is the fold before it."""
    frames, after = shown(state, events)
    return batch_of(state, after, frames, recorded), after


def shown(state: ResponseState, events: Iterable[Event]) -> tuple[list[bytes], ResponseState]:
    """The frames that the events show, and the state after them."""
    frames: list[bytes] = []
    for event in events:
        wire, state = step(state, event)
        frames += [one.frame for one in wire]
    return frames, state


def batch_of(
    before: ResponseState, after: ResponseState, frames: Sequence[bytes], recorded: Recorded | Record
) -> Batch:
    """The frames of one commit, with what followers need to know of it."""
    known = after if after.created is not None else before  # Of an erased response nothing is left.
    return Batch(
        channel=recorded.stream,
        first=before.next_number,
        count=len(frames),
        frames=tuple(frames),
        version=recorded.last_version,
        position=recorded.position,
        tenant=known.project if known.created is not None else "",
        last=after.is_over,
        transient=known.created is not None and not known.request.store,
    )
