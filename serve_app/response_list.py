"""Pages of `GET /v1/responses`: bounded by entries, by bytes, and by how much is looked through for them."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from eventstore.errors import LogCorrupted
from serve_app.errors import ApiError
from serve_app.response_reader import ResponseReader

PAGE_BYTES: Final = 32 * 1024 * 1024
"""A page that is longer ends early; it holds at least one response."""
LOOKED_THROUGH_MAX: Final = 10_000
"""Responses that are looked at for one page of those of one model."""
_AT_ONCE: Final = 200


async def response_page(
    responses: ResponseReader,
    *,
    status: str,
    model: str | None,
    after: int | None,
    newest_first: bool,
    limit: int,
) -> bytes:
    """The list object, as JSON.  `after` is where the response stands behind which the page begins.

    A page that ends early names as its last id what was looked at last, so that the next one goes on there.
    """
    at_once = limit + 1 if model is None else _AT_ONCE
    shown: dict[str, bytes] = {}
    last, size, looked_at = None, 0, 0
    while True:
        heads = await responses.page(status=status, after=after, newest_first=newest_first, limit=at_once)
        for head in heads:
            fits = model is None or head.attributes.get("model") == model
            if looked_at == LOOKED_THROUGH_MAX or (fits and (len(shown) == limit or size > PAGE_BYTES)):
                return _list(shown, last, has_more=True)
            looked_at, last, after = looked_at + 1, head.stream, head.created
            # One that is erased while the list is read is not in it, and one that was damaged keeps no other
            # from being shown: who asks for it by its id is told.
            with suppress(ApiError, LogCorrupted):
                if fits:
                    shown[head.stream] = await responses.body(head.stream)
                    size += len(shown[head.stream])
        if len(heads) < at_once:
            return _list(shown, next(reversed(shown), None), has_more=False)


def _list(shown: dict[str, bytes], last: str | None, *, has_more: bool) -> bytes:
    """A list object from bodies that are JSON already."""
    first, end = (f'"{id}"' if id else "null" for id in (next(iter(shown), None), last))
    more = "true" if has_more else "false"
    tail = f'],"first_id":{first},"last_id":{end},"has_more":{more}}}'
    return b'{"object":"list","data":[' + b",".join(shown.values()) + tail.encode()
