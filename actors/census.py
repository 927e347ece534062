"""The census: what every process of the cluster has counted, gathered by the supervisor.

One port leads to several replicas, so a scrape must not depend on which of them answers: all answer with what
the supervisor knows of everybody.  Figures are never added up here.  Each process has its own name, so its
counters only grow, and whoever reads them can tell a new process from one that lost count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from actors.hosts import HostDied, HostHandle
from eventstore.meter import METER, Figure, Figures, added

REPORT_AGE_MAX = 30.0
"""Seconds after which a replica that reports no more is left out."""
REPORTS_MAX = 1024
"""Replicas whose reports are kept; those of more are not."""
ANSWER_MAX = 1.0
"""Seconds a host may take to answer; one that hangs is left out."""


class Census:
    """Knows the replicas by their reports, asks the hosts, and is itself in the supervisor's process."""

    def __init__(self, process: str, now: Callable[[], float]) -> None:
        """`process` names this one; `now` gives seconds."""
        self._process = process
        self._now = now
        self._reports: dict[str, tuple[float, Figures]] = {}
        self._ended: dict[str, Figure] = {}

    def report(self, process: str, figures: Figures) -> None:
        """Keep what a replica counted until it reports again."""
        self._forget()
        if process in self._reports or len(self._reports) < REPORTS_MAX:
            self._reports[process] = (self._now(), figures)

    async def add_up(self, handle: HostHandle) -> None:
        """Count what a host of one response has counted, before it ends; names of such hosts are too many."""
        for figure in await _ask(handle):
            if figure.kind != "gauge":
                known = self._ended.get(figure.name)
                self._ended[figure.name] = figure if known is None else added(known, figure)

    async def gather(self, hosts: Mapping[str, HostHandle]) -> list[tuple[str, Figures]]:
        """The figures of every process, by its name; `hosts` are asked side by side.

        Those of hosts that were added up are together under a name of their own.
        """
        self._forget()
        answers = await asyncio.gather(*(_ask(handle) for handle in hosts.values()))
        return [
            (self._process, METER.figures()),
            *([(f"{self._process}-ended", list(self._ended.values()))] if self._ended else []),
            *((name, figures) for name, figures in zip(hosts, answers, strict=True) if figures),
            *((name, figures) for name, (_, figures) in self._reports.items()),
        ]

    def _forget(self) -> None:
        oldest = self._now() - REPORT_AGE_MAX
        self._reports = {name: kept for name, kept in self._reports.items() if kept[0] >= oldest}


async def _ask(handle: HostHandle) -> Figures:
    try:
        return await asyncio.wait_for(handle.figures(), ANSWER_MAX)
    except (HostDied, TimeoutError):
        return ()
