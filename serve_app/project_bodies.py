"""The bodies of the endpoints for operators."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

from pydantic import Field

from serve_app.call import Call
from serve_app.json_body import parse_object, read_body
from serve_app.request_body import WHOLE, Body

BODY_BYTES_MAX: Final = 64 * 1024
BODY_SECONDS_MAX: Final = 30.0
LIMIT_MAX: Final = 2**53
"""The largest whole number that every JSON reader keeps."""
OVERLAP_DEFAULT_S: Final = 24 * 3600
OVERLAP_MAX_S: Final = 90 * 24 * 3600

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Bound = Annotated[int | None, Field(ge=0, le=LIMIT_MAX), WHOLE]


class ProjectBody(Body):
    """A project's name."""

    name: Name


class KeyBody(Body):
    """A key's name, by which people know it."""

    name: Name


class RotateBody(Body):
    """How the old key gives way to the new one."""

    name: Name | None = None
    """Of the new key; that of the old one unless given."""
    overlap_seconds: Annotated[int, Field(ge=0, le=OVERLAP_MAX_S), WHOLE] = OVERLAP_DEFAULT_S
    """How long the old key goes on working."""


class QuotaBody(Body):
    """Bounds; null lifts one, and what is not named stays as it is."""

    requests_per_minute: Bound = None
    tokens_per_minute: Bound = None
    running_responses: Bound = None
    open_streams: Bound = None
    stored_bytes: Bound = None


B = TypeVar("B", bound=Body)


async def read_as(call: Call, kind: type[B], *, optional: bool = False) -> B:
    """The call's body as `kind`; where it is `optional`, no body is an empty one.  Raises `ApiError`."""
    body = await read_body(call, BODY_BYTES_MAX, BODY_SECONDS_MAX)
    return kind.checked({} if optional and not body else parse_object(body))
