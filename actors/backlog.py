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
"""Pages of one category that are erased in a round, or looked through for what can be sealed: the next round
goes on."""
KNOWN_MAX = 10_000
"""Streams that are remembered because nothing can be done about them."""
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


class Known:
    """Streams that stay as they are: the last `KNOWN_MAX` that were added."""

    def __init__(self) -> None:
        self._streams: dict[str, None] = {}

    def __contains__(self, stream: str) -> bool:
        return stream in self._streams

    def add(self, stream: str) -> bool:
        """Remember it.  Returns whether it is new."""
        if stream in self._streams:
            return False
        if len(self._streams) >= KNOWN_MAX:
            del self._streams[next(iter(self._streams))]
        self._streams[stream] = None
        return True


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
        self._erase_after: dict[str, int] = dict.fromkeys(RESPONSES, 0)
        """Where the next round of erasing begins: what cannot be erased stops nothing behind it."""
        self._seal_after: dict[str, int] = dict.fromkeys(RESPONSES, 0)
        """The same of sealing."""
        self.unsealable = Known()
        """Streams that do not verify or are too long; a restart looks at them again."""

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
            least = self._least_kept(category)
            given, more = 0, least < inf
            while more and given < PAGES_MAX:
                after = max(self._erase_after[category], self._erased_to[category])
                page = await self._reader.heads(
                    category=category, states=(*RUNNING, *OVER), after=after, limit=PAGE
                )
                if page and after == self._erased_to[category]:
                    self._erased_to[category] = page[0].created - 1
                # Whatever was created later ends later still: the next round begins anew.
                more = len(page) == PAGE and self._is_past(page[-1], "created_at", least)
                self._erase_after[category] = page[-1].created if more else 0
                if due := [head for head in page if self._is_over(head, self._kept(head))]:
                    given += 1
                    yield [DeleteOrder(head.stream, *_WHY[category]) for head in due]

    async def sealable(self) -> list[Head]:
        """What ended long enough ago to be sealed, and is not: a page of it at most, the oldest first.

        It goes on where the last look ended, and after the last one from the beginning.
        """
        wait = self._config.seal_after
        for category, states in _SEALED_IN:
            for _ in range(PAGES_MAX):
                page = await self._reader.heads(
                    category=category,
                    states=states,
                    after=self._seal_after[category],
                    sealed=False,
                    limit=PAGE,
                )
                found = [
                    head for head in page if head.stream not in self.unsealable and self._is_over(head, wait)
                ]
                more = len(page) == PAGE and self._is_past(page[-1], "created_at", wait)
                self._seal_after[category] = page[-1].created if more else 0
                if found:
                    return found
                if not more:
                    break
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
