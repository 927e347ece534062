"""Who is alive, by the writer's own clock.

Deadlines live in memory: a renewal costs no disk.  What is kept in the log is who holds a lease, for how long
at a time, and who was buried; a new writer gives every lease it finds a whole new term, so that nobody dies
of the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Leases:
    """The leases of one log.  Not thread-safe: the writer's thread alone uses it."""

    def __init__(self, found: Iterable[tuple[str, int, bool]], monotonic: Callable[[], float]) -> None:
        """`found` are (holder, term in milliseconds, buried), as kept in the log."""
        self._monotonic = monotonic
        self._terms: dict[str, int] = {}
        self._deadlines: dict[str, float] = {}
        self._buried: set[str] = set()
        now = monotonic()
        for holder, term_ms, buried in found:
            self._terms[holder] = term_ms
            self._deadlines[holder] = now + term_ms / 1000
            if buried:
                self._buried.add(holder)

    def is_buried(self, holder: str) -> bool:
        """Whether the holder can never renew again."""
        return holder in self._buried

    def renew(self, holder: str, ttl: float) -> int | None:
        """Begin a new term of `ttl` seconds.  Returns its milliseconds where they have to be written down."""
        term_ms = max(1, round(ttl * 1000))
        self._deadlines[holder] = self._monotonic() + ttl
        if self._terms.get(holder) == term_ms:
            return None
        self._terms[holder] = term_ms
        return term_ms

    def bury(self, holder: str) -> bool:
        """Whether that is news, to be written down."""
        if holder in self._buried:
            return False
        self._buried.add(holder)
        return True

    def dead(self, owners: Iterable[str], now: float) -> list[str]:
        """Those of `owners` that were buried or whose term was over at `now`, sorted."""
        return sorted(
            owner
            for owner in owners
            if owner in self._buried or (owner in self._deadlines and self._deadlines[owner] <= now)
        )
