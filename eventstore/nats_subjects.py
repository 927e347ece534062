"""Names that stand in a NATS subject."""

from __future__ import annotations

import re

from eventstore.errors import EventStoreError

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")


class UnsafeToken(EventStoreError):
    """A name cannot be one token of a subject: a dot would add tokens, `*` and `>` reach other subjects."""

    def __init__(self, token: str) -> None:
        super().__init__(token)
        self.token = token

    def __str__(self) -> str:
        return f"{self.token!r} cannot stand in a NATS subject; use 1 to 128 of A-Z a-z 0-9 _ -"


def safe_token(token: str) -> str:
    """The token itself.  Raises `UnsafeToken` where it could mean more than one token."""
    if _TOKEN.fullmatch(token) is None:
        raise UnsafeToken(token)
    return token
