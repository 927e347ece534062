"""What happened to a conversation.  The names in `runtime.conversation.aggregate` are a file format.

Items are in the Responses API's shapes, each with its `id`, and copies of the conversation's own: whatever
becomes of the response they came from, they stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.model import JSON

Item = Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class ConversationCreated:
    """Somebody began a conversation.  Always version 0."""

    id: str
    project: str
    key_id: str | None
    """Who asked; never the key."""
    created_at: int
    """Seconds since 1970 UTC; shown to clients."""
    metadata: Mapping[str, JSON]
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemsAdded:
    """A client added items at the end."""

    items: tuple[Item, ...]
    by: str | None


@dataclass(frozen=True, slots=True)
class ItemRemoved:
    """A client removed an item; its words stay in the log until the conversation is erased."""

    id: str
    by: str | None


@dataclass(frozen=True, slots=True)
class MetadataChanged:
    """A client replaced the metadata."""

    metadata: Mapping[str, JSON]
    by: str | None


@dataclass(frozen=True, slots=True)
class ResponseAttached:
    """A response began, in the same unit: until it is detached, no other one may."""

    response_id: str


@dataclass(frozen=True, slots=True)
class ResponseDetached:
    """The response ended, in the same unit."""

    response_id: str
    items: tuple[Item, ...] = ()
    """What it adds: its input and output; nothing where there is no answer."""


@dataclass(frozen=True, slots=True)
class Erased:
    """The payloads before this event are gone.  Recorded under the log's own name for it."""

    at: int
    by: str | None
    reason: str


Event = (
    ConversationCreated
    | ItemsAdded
    | ItemRemoved
    | MetadataChanged
    | ResponseAttached
    | ResponseDetached
    | Erased
)
