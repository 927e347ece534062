"""What may be asked of a conversation.  Time and ids come in with the command; `decide` reads no clock.

Every command names the project that asks: to another one, the conversation does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.conversation.events import Item
from runtime.model import JSON


@dataclass(frozen=True, slots=True)
class CreateConversation:
    """Begin it."""

    conversation: str
    project: str
    key_id: str | None
    at: int
    metadata: Mapping[str, JSON]
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class AddItems:
    """Add items at the end; their ids are new, so that the same command twice adds them once."""

    conversation: str
    project: str
    items: tuple[Item, ...]
    by: str | None


@dataclass(frozen=True, slots=True)
class RemoveItem:
    """Remove an item; one that is not there is removed already."""

    conversation: str
    project: str
    item_id: str
    by: str | None


@dataclass(frozen=True, slots=True)
class ChangeMetadata:
    """Replace the metadata."""

    conversation: str
    project: str
    metadata: Mapping[str, JSON]
    by: str | None


@dataclass(frozen=True, slots=True)
class AttachResponse:
    """Let a response begin in it."""

    conversation: str
    project: str
    response_id: str


@dataclass(frozen=True, slots=True)
class DetachResponse:
    """Take what the response adds, and let the next one begin."""

    conversation: str
    project: str
    response_id: str
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class EraseConversation:
    """Erase what is recorded.  The responses that it was made of stay."""

    conversation: str
    project: str
    at: int
    by: str | None
    reason: str = "deleted by its owner"


Command = (
    CreateConversation
    | AddItems
    | RemoveItem
    | ChangeMetadata
    | AttachResponse
    | DetachResponse
    | EraseConversation
)
