"""The backlog: what the log holds that no host works on.  Heads alone tell, so no hint is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

from actors.config import ClusterConfig
from actors.orders import DeleteOrder
from eventstore.events import Head
from eventstore.ports import LogReader
from runtime.response.aggregate import Status
from runtime.response.standing import OVER, QUEUED, RESPONSES, RUNNING, TRANSIENT, is_background

PAGE = 256
PROJECTS_MAX = 64
"""Projects that are looked at when more waits than a page holds: those that run least."""


async def fair_page(reader: LogReader, limit: int) -> list[Head]:
    """About `limit` responses that wait and belong to nobody, in the order in which they should run.

    Whoever's project runs least comes first, and the oldest within a project: a project that queues thousands
    does not keep another from its next free slot.
    """
    waiting = {state: await reader.tally(categories=RESPONSES, states=[state]) for state in QUEUED}
    by_project = sum((Counter(counted) for counted in waiting.values()), Counter[str]())
    if not by_project:
        return []
    turns = Counter(await reader.tally(categories=RESPONSES, states=[Status.IN_PROGRESS]))
    if by_project.total() <= limit:
        heads = list(await reader.heads(states=QUEUED, limit=limit))
    else:
        least = sorted(by_project, key=lambda project: turns[project])[:PROJECTS_MAX]
        each = max(1, limit // len(least))
        # One state and one category at a time: so an index gives the oldest, and nothing is sorted.
        heads = [
            head
            for project in least
            for state in QUEUED
            for category in RESPONSES
            if waiting[state].get(project)
            for head in await reader.heads(category=category, tenant=project, states=[state], limit=each)
        ]
    order: list[tuple[int, int, Head]] = []
    for head in sorted(heads, key=lambda head: head.created):
        if head.owner is None:
            turns[head.tenant] += 1
            order.append((turns[head.tenant], head.created, head))
    return [head for _, _, head in sorted(order, key=lambda entry: entry[:2])]


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
        """A page of what waits, in the order of `fair_page`."""
        page = await fair_page(self._reader, PAGE)
        self.waiting = len(page)
        return page

    async def unowned(self) -> list[Head]:
        """What began and belongs to nobody: whoever took it to end it died before it was ended.

        Not at first sight, because most of those are being ended at that moment: at the second look.
        """
        found: dict[tuple[str, int], Head] = {}
        after = 0
        while page := await self._reader.heads(states=[Status.IN_PROGRESS], after=after, limit=PAGE):
            found |= {(head.stream, head.epoch): head for head in page if head.owner is None}
            after = page[-1].created
        known, self._unowned = self._unowned, set(found)
        return [head for key, head in found.items() if key in known]

    async def erasures(self) -> AsyncIterator[list[DeleteOrder]]:
        """Orders to erase the transient responses whose time is over, page by page."""
        after = start = self._erased_to
        while page := await self._reader.heads(
            category=TRANSIENT, states=(*RUNNING, *OVER), after=after, limit=PAGE
        ):
            if after == start:
                self._erased_to = page[0].created - 1
            after = page[-1].created
            due = [head.stream for head in page if self._is_due(head)]
            if due:
                yield [DeleteOrder(stream, "store:false", "its time is over") for stream in due]

    def _is_due(self, head: Head) -> bool:
        config = self._config
        keep = config.transient_after_background if is_background(head) else config.transient_after
        return head.state in OVER and self._now() >= float(head.attributes.get("ended_at", "0")) + keep
