"""The wall clock of the log: for people and for expiry, never for order."""

from __future__ import annotations

import time


def wall_clock() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000
