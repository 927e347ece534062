"""Lists of items, page by page: clients go on behind the last id that they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from serve_app.call import Call
from serve_app.errors import no_item

PAGE_DEFAULT: Final = 20
PAGE_MAX: Final = 100


def page_of(call: Call) -> tuple[int, bool]:
    """How many entries a page has, and whether the newest come first.  Raises `ApiError` (400)."""
    limit = call.number("limit", PAGE_DEFAULT, 1, PAGE_MAX)
    return limit, call.choice("order", "desc", "asc", "desc") == "desc"


def item_page(
    call: Call, items: Sequence[Any], removed: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Any]:
    """The page of `items`, given the oldest first, that the query asks for.

    `removed` tells of items that are gone how many of `items` are older: clients go on behind those too.
    Raises `ApiError` (400, 404).
    """
    limit, newest_first = page_of(call)
    after = call.query("after")
    if after is not None:
        place = next((index for index, item in enumerate(items) if item["id"] == after), None)
        if place is None and after not in removed:
            raise no_item(after, "after")
        older, newer = (place, place + 1) if place is not None else (removed[after], removed[after])
        items = items[:older] if newest_first else items[newer:]
    ordered = list(reversed(items)) if newest_first else list(items)
    return item_list(ordered[:limit], has_more=len(ordered) > limit)


def item_list(items: Sequence[Any], *, has_more: bool = False) -> dict[str, Any]:
    """The list object."""
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
