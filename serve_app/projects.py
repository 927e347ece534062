"""What a replica knows of projects: read from the log, and read again when it is a little old."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from eventstore.events import NO_STREAM
from eventstore.ports import LogReader
from runtime.project.aggregate import CATEGORY, HAS_KEYS, PROJECT
from runtime.project.state import DEFAULT_PROJECT, INITIAL, VIRTUAL_DEFAULT, ProjectState
from serve_app.keys import is_project_id

FRESH_S: Final = 2.0
"""How old a project may be that is not looked up again: a revoked key works at most so long."""
KNOWN_MAX: Final = 1024
"""Projects that a replica remembers; those asked for least recently are forgotten."""
PAGE: Final = 100


@dataclass(slots=True)
class _Known:
    state: ProjectState = INITIAL
    version: int = NO_STREAM
    read_at: float = float("-inf")
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Projects:
    """Every method raises `StoreUnavailable` where the log has to be read and cannot be."""

    def __init__(self, reader: LogReader, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._reader = reader
        self._monotonic = monotonic
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._have_keys = False
        self._looked_at = float("-inf")
        self._look = asyncio.Lock()

    @property
    def known_to_have_keys(self) -> bool:
        """Whether this replica knows of a key in any project, without looking."""
        return self._have_keys

    async def have_keys(self) -> bool:
        """Whether any project ever had a key.  Once one had, that never changes."""
        if not self._knows():
            async with self._look:
                if not self._knows():
                    began = self._monotonic()
                    self._have_keys = await self._find_keys()
                    self._looked_at = began
        return self._have_keys

    def _knows(self) -> bool:
        return self._have_keys or self._monotonic() - self._looked_at < FRESH_S

    async def find(self, project: str, age_s: float = FRESH_S) -> ProjectState:
        """The project as it was at most `age_s` ago; one that does not exist has no id."""
        if not is_project_id(project):
            return INITIAL
        known = self._known.get(project)
        if known is None:
            known = self._known[project] = _Known()
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(project)
        good_since = self._monotonic() - age_s
        if known.read_at <= good_since:
            await self._read(project, known, good_since)
        if project == DEFAULT_PROJECT and not known.state.id:
            return VIRTUAL_DEFAULT
        return known.state

    async def _read(self, project: str, known: _Known, good_since: float) -> None:
        async with known.turn:
            # Of many who ask at once the first one reads for all.
            if known.read_at <= good_since:
                began = self._monotonic()
                known.state, known.version = await PROJECT.read(
                    self._reader, project, known.state, known.version
                )
                known.read_at = began

    def forget(self, project: str) -> None:
        """Look it up again at the next question: it was just changed."""
        self._known.pop(project, None)
        self._looked_at = float("-inf")

    async def _find_keys(self) -> bool:
        after = 0
        while page := await self._reader.heads(category=CATEGORY, after=after, limit=PAGE):
            if any(HAS_KEYS in head.attributes for head in page):
                return True
            after = page[-1].created
        return False
