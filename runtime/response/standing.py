"""How the head of a stream tells that it is a response's, and where that response stands."""

from __future__ import annotations

from typing import Final

from eventstore.events import Head
from runtime.response.aggregate import ResponseState, Status

STORED: Final = "response"
TRANSIENT: Final = "transient"
"""What `store: false` asked for, and is erased soon after its end."""
RESPONSES: Final = (STORED, TRANSIENT)
"""The categories of streams that are responses."""

WAITING: Final = "waiting"
"""Queued, and its client waits.  These are few and have a bound, so they are counted without those that wait
in the background, of which there may be any number."""
QUEUED: Final = (Status.QUEUED.value, WAITING)
RUNNING: Final = (*QUEUED, Status.IN_PROGRESS.value)
OVER: Final = tuple(
    status.value for status in (Status.COMPLETED, Status.FAILED, Status.INCOMPLETE, Status.CANCELLED)
)


def standing(state: ResponseState) -> str:
    """Where a response stands, for its head."""
    if state.status == Status.QUEUED and not state.request.background:
        return WAITING
    return state.status.value


def in_queue(head: Head) -> str:
    """Where a response stands that goes back to the queue."""
    return Status.QUEUED.value if is_background(head) else WAITING


def is_background(head: Head) -> bool:
    """Whether no client waits for it."""
    return head.attributes.get("background") == "true"
