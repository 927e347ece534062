"""The bodies of requests about conversations, checked once and in one normal form afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, TypeVar

from pydantic import Field, ValidationError

from runtime.conversation.events import Item
from runtime.response.items import fresh_id, known_as
from serve_app.errors import bad_request
from serve_app.input_items import input_items
from serve_app.limits import Limits
from serve_app.request_body import Body, metadata_within, told

ITEMS_MAX: Final = 20
"""Items of one request, as in the Responses API."""

Items = Annotated[list[Any], Field(max_length=ITEMS_MAX)]
B = TypeVar("B", bound=Body)


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


class Begun(NamedTuple):
    """A conversation that is to begin."""

    items: tuple[Item, ...]
    metadata: Mapping[str, Any]


def read_conversation(fields: Mapping[str, Any], limits: Limits, size: int, entropy: bytes) -> Begun:
    """What a conversation begins with.  Raises `ApiError`, as the others here: 400, 413, 422."""
    given = _checked(ConversationBody, fields)
    metadata = metadata_within(given.metadata or {}, limits.metadata)
    return Begun(_items(given.items or (), limits, size, entropy), metadata)


def read_metadata(fields: Mapping[str, Any], limits: Limits) -> Mapping[str, Any]:
    """The metadata that replaces the former one."""
    return metadata_within(_checked(MetadataBody, fields).metadata or {}, limits.metadata)


def read_items(fields: Mapping[str, Any], limits: Limits, size: int, entropy: bytes) -> tuple[Item, ...]:
    """Items to add, each with a new id: made from 16 random bytes, `entropy`."""
    return _items(_checked(ItemsBody, fields).items, limits, size, entropy)


def _checked(body: type[B], fields: Mapping[str, Any]) -> B:
    try:
        return body.model_validate(fields)
    except ValidationError as error:
        raise told(error) from None


def _items(given: Sequence[Any], limits: Limits, size: int, entropy: bytes) -> tuple[Item, ...]:
    read = input_items(given, limits, size, name="items").items
    for index, item in enumerate(read):
        if item["type"] == "item_reference":
            message = "A conversation holds items themselves. Send the item instead of a reference to it."
            raise bad_request(message, f"items[{index}]", "invalid_value")
    return tuple(
        known_as(fresh_id(str(item["type"]), entropy, index), item) for index, item in enumerate(read)
    )
