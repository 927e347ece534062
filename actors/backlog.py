"""The backlog: what the log holds that no host works on.  Heads alone tell, so no hint is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

from actors.config import ClusterConfig
from actors.orders import DeleteOrder
from eventstore.events import Head
from eventstore.ports import LogReader

PAGE = 256
RUNNING = ("queued", "in_progress")
OVER = ("completed", "failed", "incomplete", "cancelled")


class Backlog:
    """Looks through the log.  Every method raises `StoreUnavailable`."""

    def __init__(self, reader: LogReader, config: ClusterConfig, now: Callable[[], float]) -> None:
        """`now` gives seconds since 1970 UTC."""
        self._reader = reader
        self._config = config
        self._now = now
        self._unowned: set[tuple[str, int]] = set()
        """Streams and their epochs that ran nowhere at the last look."""
        self.waiting = 0
        """How many responses waited at the last look, a page at most."""
        self._erased_to = 0
        """Every transient response created up to this position is erased."""

    async def queued(self) -> list[Head]:
        """A page of what waits: the oldest first within a project, the projects in turn."""
        turns: Counter[str] = Counter()
        order: list[tuple[int, int, Head]] = []
        for head in await self._reader.heads(states=["queued"], limit=PAGE):
            if not head.owner:
                turns[head.tenant] += 1
                order.append((turns[head.tenant], head.created, head))
        self.waiting = len(order)
        return [head for _, _, head in sorted(order, key=lambda entry: entry[:2])]

    async def unowned(self) -> list[Head]:
        """What began and belongs to nobody: whoever took it to end it died before it was ended.

        Not at first sight, because most of those are being ended at that moment: at the second look.
        """
        found: dict[tuple[str, int], Head] = {}
        after = 0
        while page := await self._reader.heads(states=["in_progress"], after=after, limit=PAGE):
            found |= {(head.stream, head.epoch): head for head in page if head.owner is None}
            after = page[-1].created
        known, self._unowned = self._unowned, set(found)
        return [head for key, head in found.items() if key in known]

    async def erasures(self) -> AsyncIterator[list[DeleteOrder]]:
        """Orders to erase the transient responses whose time is over, page by page."""
        after = start = self._erased_to
        while page := await self._reader.heads(
            category="transient", states=(*RUNNING, *OVER), after=after, limit=PAGE
        ):
            if after == start:
                self._erased_to = page[0].created - 1
            after = page[-1].created
            due = [head.stream for head in page if self._is_due(head)]
            if due:
                yield [DeleteOrder(stream, "store:false", "its time is over") for stream in due]

    def _is_due(self, head: Head) -> bool:
        background = head.attributes.get("background") == "true"
        keep = self._config.transient_after_background if background else self._config.transient_after
        return head.state in OVER and self._now() >= float(head.attributes.get("ended_at", "0")) + keep
