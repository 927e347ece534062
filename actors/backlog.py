"""The backlog: what the log holds that no host works on.  Heads alone tell, so no hint is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from math import inf

from actors.config import ClusterConfig
from actors.orders import DeleteOrder
from eventstore.events import Head
from eventstore.ports import LogReader
from runtime.response.aggregate import Status
from runtime.response.standing import OVER, QUEUED, RESPONSES, RUNNING, STORED, TRANSIENT, is_background

PAGE = 256
PROJECTS_MAX = 64
"""Projects that are looked at when more waits than a page holds: those that run least."""
PAGES_MAX = 4
"""Pages of one category that are erased in a round: the next round goes on."""
_WHY = {
    STORED: ("retention", "it was kept as long as it was to be"),
    TRANSIENT: ("store:false", "its time is over"),
}
"""Who erases, and why."""
_SEALED_IN = ((STORED, (*OVER, Status.ERASED.value)), (TRANSIENT, (Status.ERASED.value,)))
"""What is transient is erased soon: it is sealed after that."""


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
        self._erased_to = dict.fromkeys(RESPONSES, 0)
        """Every response created up to this position, of each category, is erased."""
        self.unsealable: set[str] = set()
        """Streams that do not verify; a restart looks at them again."""

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
        """Orders to erase the responses whose time is over, page by page."""
        for category in RESPONSES:
            after = start = self._erased_to[category]
            given = 0
            while given < PAGES_MAX and (
                page := await self._reader.heads(
                    category=category, states=(*RUNNING, *OVER), after=after, limit=PAGE
                )
            ):
                if after == start:
                    self._erased_to[category] = page[0].created - 1
                after = page[-1].created
                if due := [head for head in page if self._is_over(head, self._kept(head))]:
                    given += 1
                    yield [DeleteOrder(head.stream, *_WHY[category]) for head in due]
                if not self._is_past(page[-1], "created_at", self._least_kept(category)):
                    break  # Whatever was created later ends later still.

    async def sealable(self) -> list[Head]:
        """What ended long enough ago to be sealed, and is not: a page of it at most, the oldest first."""
        for category, states in _SEALED_IN:
            found: list[Head] = []
            after, more = 0, True
            while more and len(found) < PAGE:
                page = await self._reader.heads(
                    category=category, states=states, after=after, sealed=False, limit=PAGE
                )
                found += [head for head in page if self._is_over(head, self._config.seal_after)]
                more = bool(page) and self._is_past(page[-1], "created_at", self._config.seal_after)
                after = page[-1].created if page else after
            if found := [head for head in found if head.stream not in self.unsealable][:PAGE]:
                return found
        return []

    def _kept(self, head: Head) -> float:
        """Seconds from a response's end to its erasure."""
        config = self._config
        if head.category == STORED:
            return config.retention or inf
        return config.transient_after_background if is_background(head) else config.transient_after

    def _least_kept(self, category: str) -> float:
        config = self._config
        if category == STORED:
            return config.retention or inf
        return min(config.transient_after, config.transient_after_background)

    def _is_over(self, head: Head, after: float) -> bool:
        return head.state not in RUNNING and self._is_past(head, "ended_at", after)

    def _is_past(self, head: Head, attribute: str, after: float) -> bool:
        return self._now() >= float(head.attributes.get(attribute, "0")) + after
