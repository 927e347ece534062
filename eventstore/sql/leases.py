"""Who is alive, by the writer's own clock.

Deadlines live in memory: a renewal costs no disk.  What is kept in the log is who holds a lease, for how long
at a time, and who was buried; a new writer gives every lease it finds a whole new term, so that nobody dies
of the change.  Nor does anybody die of a writer that stood still: while it hears nobody, no term passes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import Final

PAUSE_S: Final = 1.5
"""The writer hears somebody several times a second: after so long a silence it was not others who slept."""
FORGET_S: Final = 3600.0
"""Seconds beyond its term after which a lease of nobody who owns a stream is forgotten."""
BURIED_KEPT: Final = 1024
"""Buried holders without streams that are remembered.  An older one could renew, and would be fenced."""
FORGOTTEN_MAX: Final = 64
"""Leases that are forgotten at a time."""


class Leases:
    """The leases of one log.  Not thread-safe: the writer's thread alone uses it."""

    def __init__(self, found: Iterable[tuple[str, int, bool]], monotonic: Callable[[], float]) -> None:
        """`found` are (holder, term in milliseconds, buried), as kept in the log, the oldest first."""
        self._monotonic = monotonic
        self._terms: dict[str, int] = {}
        self._deadlines: dict[str, float] = {}
        self._buried: dict[str, None] = {}
        self._looked_at = now = monotonic()
        for holder, term_ms, buried in found:
            if buried:
                self._buried[holder] = None
            else:
                self._terms[holder] = term_ms
                self._deadlines[holder] = now + term_ms / 1000

    def look(self) -> float:
        """The time now, in seconds.  Called whenever somebody is heard, before what they ask for is done.

        Who could have renewed in a pause in which nobody was heard is given the pause back.
        """
        now = self._monotonic()
        pause, looked_at = now - self._looked_at, self._looked_at
        self._looked_at = now
        if pause > PAUSE_S:
            for holder, deadline in self._deadlines.items():
                if deadline > looked_at:
                    self._deadlines[holder] = deadline + pause
        return now

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
        self._buried[holder] = None
        self._terms.pop(holder, None)
        self._deadlines.pop(holder, None)
        return True

    def dead(self, owners: Iterable[str], now: float) -> list[str]:
        """Those of `owners` that were buried or whose term was over at `now`, sorted."""
        return sorted(
            owner
            for owner in owners
            if owner in self._buried or (owner in self._deadlines and self._deadlines[owner] <= now)
        )

    def forget(self, owners: Collection[str]) -> list[str]:
        """Forget those whom nobody will ask for, some at a time; they are to be deleted.

        `owners` own streams: what became of them must be known until others own these.
        """
        late = [holder for holder in self._late() if holder not in owners][:FORGOTTEN_MAX]
        old = [
            holder
            for holder in islice(self._buried, max(0, len(self._buried) - BURIED_KEPT))
            if holder not in owners
        ][:FORGOTTEN_MAX]
        for holder in late:
            del self._terms[holder], self._deadlines[holder]
        for holder in old:
            del self._buried[holder]
        return late + old

    @property
    def has_forgettable(self) -> bool:
        """Whether `forget` may find anybody: cheap, unlike a look for all owners."""
        return len(self._buried) > BURIED_KEPT or any(True for _ in self._late())

    def _late(self) -> Iterable[str]:
        over = self._monotonic() - FORGET_S
        return (holder for holder, deadline in self._deadlines.items() if deadline < over)
