"""How many examples are tried: all of them by `make test`, a quarter by `make test-fast`."""

from __future__ import annotations

from hypothesis import settings


def examples(count: int) -> int:
    """So many where the profile has the usual 100, and as large a part of them as it has of those."""
    return max(1, count * settings().max_examples // 100)
