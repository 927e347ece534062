"""What must hold of every conversation: it was locked exactly as long as a response ran in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from eventstore.events import Record
from runtime.conversation import events as e
from runtime.conversation.aggregate import CONVERSATION
from runtime.conversation.state import is_conversation_id
from runtime.response.aggregate import ENDINGS
from runtime.response.codec import decode

CONVERSATIONS: Final = tuple("conv_" + digit * 32 for digit in "ab")
"""Those that clients of one simulation share."""


def judge_conversations(streams: Mapping[str, Sequence[Record]]) -> list[str]:
    """Everything that is wrong."""
    return [
        f"{stream}: {problem}"
        for stream, records in streams.items()
        if is_conversation_id(stream)
        for problem in _judge(records, streams)
    ]


def _judge(records: Sequence[Record], streams: Mapping[str, Sequence[Record]]) -> list[str]:
    problems: list[str] = []
    running: str | None = None
    for record in records:
        for event in CONVERSATION.codec.decode(record):
            if isinstance(event, e.ResponseAttached):
                if running is not None:
                    problems.append(f"{event.response_id} began while {running} ran")
                running = event.response_id
                if streams[running][0].position != record.position - 1:
                    problems.append(f"{running} was not attached by the unit that created it")
            elif isinstance(event, e.ResponseDetached):
                if running != event.response_id:
                    problems.append(f"{event.response_id} was detached while {running} ran")
                running = None
                problems += _judge_end(event, record.position, streams[event.response_id])
    if running is not None:
        problems.append(f"it is locked for ever by {running}")
    return problems


def _judge_end(event: e.ResponseDetached, position: int, response: Sequence[Record]) -> list[str]:
    end = next((record for record in response if record.position == position - 1), None)
    if end is None:
        return [f"{event.response_id} was not detached by the unit that ended it"]
    if end.payload is None:
        return []  # It was erased since.
    ending = decode(end)[-1]
    if not isinstance(ending, ENDINGS):
        return [f"{event.response_id} was detached by {ending}"]
    if bool(event.items) is not end.types[-1].endswith(("completed", "incomplete")):
        return [f"{event.response_id} ended with {ending} and left {len(event.items)} items"]
    return []
