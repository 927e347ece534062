"""What is so about a conversation, and how each event changes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, assert_never

from runtime.conversation import events as e
from runtime.model import JSON

CONVERSATION_PREFIX: Final = "conv_"
REMOVED_MAX: Final = 1000
"""Removed items whose places are remembered: ten of the longest pages."""
_CONVERSATION_ID: Final = re.compile(r"conv_[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class ConversationState:
    """The fold of a conversation's events."""

    id: str = ""
    """Empty before it is created."""
    project: str = ""
    created_at: int = 0
    metadata: Mapping[str, JSON] = field(default_factory=dict)
    items: tuple[e.Item, ...] = ()
    """The oldest first."""
    removed: Mapping[str, int] = field(default_factory=dict)
    """The items that were removed last, each with how many of `items` are older: a list goes on there."""
    attached: str | None = None
    """The response that runs in it."""
    erased: bool = False

    def belongs_to(self, project: str) -> bool:
        """Whether it is there, for that project."""
        return bool(self.id) and not self.erased and self.project == project

    def item(self, item_id: str) -> e.Item | None:
        """The item with that id, or None."""
        return next((item for item in self.items if item["id"] == item_id), None)


INITIAL: Final = ConversationState()


def new_conversation_id(random_bytes: bytes) -> str:
    """A conversation's id from 16 random bytes."""
    assert len(random_bytes) == 16, "an id holds 128 random bits"
    return CONVERSATION_PREFIX + random_bytes.hex()


def is_conversation_id(text: str) -> bool:
    """Whether this can be an id of ours.  What cannot is unknown, without a look into the log."""
    return _CONVERSATION_ID.fullmatch(text) is not None


def evolve(state: ConversationState, event: e.Event) -> ConversationState:
    """The state after an event."""
    match event:
        case e.ConversationCreated():
            return ConversationState(
                event.id, event.project, event.created_at, event.metadata, tuple(event.items)
            )
        case e.ItemsAdded():
            return replace(state, items=(*state.items, *event.items))
        case e.ItemRemoved():
            return _without(event.id, state)
        case e.MetadataChanged():
            return replace(state, metadata=event.metadata)
        case e.ResponseAttached():
            return replace(state, attached=event.response_id)
        case e.ResponseDetached():
            return replace(state, attached=None, items=(*state.items, *event.items))
        case e.Erased():
            # Nothing of it may be left, whether it was read before its erasure or after.
            return ConversationState(state.id, state.project, erased=True)
        case _:
            assert_never(event)


def _without(item_id: str, state: ConversationState) -> ConversationState:
    place = next((index for index, item in enumerate(state.items) if item["id"] == item_id), None)
    if place is None:
        return state
    removed = {id: older - (older > place) for id, older in state.removed.items()} | {item_id: place}
    while len(removed) > REMOVED_MAX:
        del removed[next(iter(removed))]
    return replace(state, items=state.items[:place] + state.items[place + 1 :], removed=removed)


def to_json(state: ConversationState) -> dict[str, Any]:
    """The state as it is kept beside the stream."""
    return {name: getattr(state, name) for name in ConversationState.__slots__}


def from_json(kept: Mapping[str, Any]) -> ConversationState:
    """The inverse of `to_json`."""
    return ConversationState(**{**kept, "items": tuple(kept["items"])})
