"""The bodies of requests about conversations, checked once and in one normal form afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

from pydantic import Field

from runtime.compaction import TRIGGER
from runtime.conversation.events import Item
from runtime.response.items import fresh_id, known_as
from serve_app.errors import bad_request
from serve_app.input_items import Unseal, input_items
from serve_app.limits import Limits
from serve_app.request_body import Body

ITEMS_MAX: Final = 20
"""Items of one request, as in the Responses API."""

Items = Annotated[list[Any], Field(max_length=ITEMS_MAX)]

NO_ITEMS: Final[Mapping[str, str]] = {
    "item_reference": "Send the item itself instead of a reference to it.",
    TRIGGER: "Send it as the last input item of a response.",
}
"""Input items that only mean something to a response, each with what to do instead."""


class ConversationBody(Body):
    """Begin a conversation."""

    items: Items | None = None
    metadata: dict[str, Any] | None = None


class MetadataBody(Body):
    """Replace a conversation's metadata; null clears it."""

    metadata: dict[str, Any] | None


class ItemsBody(Body):
    """Add items to a conversation."""

    items: Items


class Given(NamedTuple):
    """Items for a conversation."""

    items: tuple[Item, ...]
    left_out: tuple[str, ...]
    """Types of items of hosted tools, which are not served."""


class ItemReader:
    """Reads items of one request, for one project."""

    def __init__(self, limits: Limits, unseal: Unseal, entropy: bytes) -> None:
        """`unseal` opens what was sealed for the project; new ids are made of `entropy`, 16 random bytes."""
        self._limits = limits
        self._unseal = unseal
        self._entropy = entropy

    def read(self, given: Sequence[Any], size: int) -> Given:
        """Items from a body of `size` bytes, each with a new id.  Raises `ApiError` (400, 413, 422)."""
        items, left_out = input_items(given, self._limits, size, self._unseal, "items")
        for index, item in enumerate(items):
            if item["type"] in NO_ITEMS:
                message = f"A conversation holds no {item['type']}. {NO_ITEMS[item['type']]}"
                raise bad_request(message, f"items[{index}]", "invalid_value")
        return Given(tuple(self._named(index, item) for index, item in enumerate(items)), left_out)

    def _named(self, index: int, item: Item) -> Item:
        return known_as(fresh_id(str(item["type"]), self._entropy, index), item)
