"""Conversations as aggregates: their stored names, what their heads tell, and the state kept beside them."""

from __future__ import annotations

from typing import Final

from eventstore.events import ERASED
from runtime.aggregate import Aggregate, Label, Snapshots
from runtime.conversation import events as e
from runtime.conversation.decider import decide
from runtime.conversation.state import INITIAL, ConversationState, evolve, from_json, to_json
from runtime.event_codec import EventCodec

CATEGORY: Final = "conversation"
OPEN: Final = "open"
LOCKED: Final = "locked"
_SNAPSHOT_EVERY: Final = 64  # Events: so many, at most, are read beside the state that is kept.


def _label(state: ConversationState) -> Label:
    word = "erased" if state.erased else OPEN if state.attached is None else LOCKED
    return Label(tenant=state.project, state=word, attributes={"created_at": str(state.created_at)})


CONVERSATION: Final[Aggregate[ConversationState, e.Event]] = Aggregate(
    category=CATEGORY,
    codec=EventCodec(
        {
            "conversation_created": e.ConversationCreated,
            "items_added": e.ItemsAdded,
            "item_removed": e.ItemRemoved,
            "metadata_changed": e.MetadataChanged,
            "response_attached": e.ResponseAttached,
            "response_detached": e.ResponseDetached,
            ERASED: e.Erased,
        },
        fields_as={"items": (list, tuple)},
    ),
    initial=INITIAL,
    decide=decide,
    evolve=evolve,
    label=_label,
    snapshots=Snapshots(shape=2, dump=to_json, load=from_json, every=_SNAPSHOT_EVERY),
)
"""The stream of a conversation bears its id."""
