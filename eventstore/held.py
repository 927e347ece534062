"""What the live bus said of positions that cannot be published yet, because one before them is missing.

What is missing may be lost, or only late: under load two hosts that commit together are heard one long after
the other.  Reading it from the log costs many times what waiting does, so how long a hole is waited for
follows what comes late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from eventstore.events import Batch

HELD_MAX: Final = 16 * 1024
HELD_BYTES: Final = 32 << 20
"""What may wait for a position that is missing before it, as much as a tap holds; more is read from the log
again."""
HOLE_SECONDS: Final = 0.02
"""How long a missing position is waited for at least: the bus reorders a little, and the log always knows."""
HOLE_SECONDS_MAX: Final = 5.0
"""The same where what was read from the log is heard after all: where one of two hosts lags, every other
position is late, and to read them all takes from that host what it lacks."""
CALMED: Final = 0.999
"""By how much that shrinks again with each window that is published; there are up to 100 a second."""
SILENCE_SECONDS: Final = 1.0


class Held:
    """Batches by position, and the oldest hole before them.  `now` gives seconds that only grow."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._batches: dict[int, Batch] = {}
        self._bytes = 0
        self._missing_since: float | None = None
        self._usual = self._patience = HOLE_SECONDS
        self._filled: set[int] = set()
        """Positions that the log had to tell, of the last hole that was given up."""

    def __len__(self) -> int:
        return len(self._batches)

    def __contains__(self, position: int) -> bool:
        return position in self._batches

    def get(self, position: int) -> Batch | None:
        """What was heard of a position."""
        return self._batches.get(position)

    @property
    def newest(self) -> int:
        """The last position that was heard of; 0 where nothing is held."""
        return max(self._batches, default=0)

    def keep(self, batch: Batch) -> bool:
        """Hold a batch; False where it has no bytes or does not fit: then the log is read for it."""
        if batch.position in self._batches:
            return True
        size = _size(batch)
        if batch.frames is None or len(self) >= HELD_MAX or self._bytes + size > HELD_BYTES:
            return False
        self._batches[batch.position] = batch
        self._bytes += size
        return True

    def release(self, position: int) -> None:
        """Let go of what was published."""
        batch = self._batches.pop(position, None)
        if batch is not None:
            self._bytes -= _size(batch)

    # -- The hole

    def look(self, next: int) -> None:
        """See whether there is a hole: `next` is the position that comes first."""
        if not self._batches or next in self._batches:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = self._now()

    @property
    def hole_is_old(self) -> bool:
        """Whether what is missing was waited for long enough."""
        return self._missing_since is not None and self._now() - self._missing_since >= self._patience

    @property
    def rest(self) -> float:
        """Seconds to wait for what comes next."""
        if self._missing_since is None:
            return SILENCE_SECONDS
        return max(0.001, self._missing_since + self._patience - self._now())

    def went_on(self, next: int) -> None:
        """What came before `next` is published."""
        self._usual = max(HOLE_SECONDS, CALMED * self._usual)
        self._patience, self._missing_since = self._usual, None
        self.look(next)

    def looked_up(self, next: int, filled: set[int] | None) -> None:
        """The log told those positions beside what is held; None where it told nothing at all.

        A hole that the log cannot fill yet is looked at less and less often.
        """
        if filled is None:
            self._patience = min(2 * self._patience, SILENCE_SECONDS)
        else:
            self._filled = filled
        self._missing_since = None
        self.look(next)

    def came_late(self, position: int) -> None:
        """A position was heard that is published already."""
        if position in self._filled:
            self._usual = min(2 * self._usual, HOLE_SECONDS_MAX)
            self._filled = set()


def _size(batch: Batch) -> int:
    return sum(map(len, batch.frames or ()))
