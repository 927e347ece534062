"""Claims that have expired are deleted bit by bit: each new one pays for a look at a few others."""

from __future__ import annotations

import sqlite3
from typing import Final

from eventstore.sql import sqlite_text as sql

LOOKED_AT: Final = 16
"""Claims that are looked at for each new one, so that those that expired are soon a small part of all."""


class ClaimSweep:
    """Goes round the claims of one log, without an index and without ever reading them all at once."""

    def __init__(self) -> None:
        self._swept_to = 0

    def expired(self, connection: sqlite3.Connection, now: int) -> list[tuple[str, tuple[object, ...]]]:
        """Statements that delete what has expired at `now`, wall-clock milliseconds, among the next few."""
        found = connection.execute(sql.CLAIMS_AFTER, (self._swept_to, LOOKED_AT)).fetchall()
        self._swept_to = found[-1][0] if len(found) == LOOKED_AT else 0
        return [(sql.FORGET_CLAIM, (row, now)) for row, until in found if until is not None and until <= now]
