"""Reading the whole log past streams that were damaged: they are named and left out, nobody waits for any."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from eventstore.errors import LogCorrupted, UnknownFormat
from eventstore.events import Record
from eventstore.ports import LogReader
from eventstore.verify import verify_head

logger = logging.getLogger(__name__)

NAMED_MAX: Final = 10_000
"""Streams that are remembered; one that was forgotten is found, and named, again."""


class Damaged:
    """The damaged streams that a reader of the whole log came across.

    What an older version of this program cannot read is none: it verifies, and a later version will read it.
    """

    def __init__(self, store: LogReader) -> None:
        self._store = store
        self._named: dict[str, None] = {}
        self._sound: tuple[str, int] | None = None
        """The stream and version that verified last: whoever cannot show it asks again and again."""
        self._one_by_one_to = 0
        """Up to this position each record is read alone, because one among them cannot be."""

    def __contains__(self, stream: str) -> bool:
        return stream in self._named

    def __len__(self) -> int:
        return len(self._named)

    async def page(self, after: int, limit: int) -> tuple[Sequence[tuple[int, Record | None]], bool]:
        """The next positions of the log with their records, None for one that cannot be read; whether there
        may be more.  Raises `StoreUnavailable`, and `UnknownFormat` where the next one needs a later version.
        """
        if after >= self._one_by_one_to:
            try:
                records = await self._store.read_all(after, limit)
            except (LogCorrupted, UnknownFormat):
                self._one_by_one_to = after + limit
            else:
                return [(record.position, record) for record in records], len(records) == limit
        try:
            records = await self._store.read_all(after, 1)
        except LogCorrupted as error:
            self._name(error.stream, f"position {after + 1} cannot be read: {error}")
            return [(after + 1, None)], True
        return [(record.position, record) for record in records], bool(records)

    async def explains(self, record: Record) -> bool:
        """Whether a record cannot be shown because its stream was damaged.  Raises `StoreUnavailable`."""
        if record.stream in self._named:
            return True
        if self._sound == (record.stream, record.last_version):
            return False
        head = await self._store.head(record.stream)
        try:
            finding = None if head is None else (await verify_head(self._store, head)).finding
        except UnknownFormat:
            return False
        if finding is None:
            self._sound = (record.stream, record.last_version)
            return False
        self._name(record.stream, str(finding))
        return True

    def _name(self, stream: str, why: str) -> None:
        if stream in self._named:
            return
        if len(self._named) >= NAMED_MAX:
            del self._named[next(iter(self._named))]
        self._named[stream] = None
        logger.error("stream %s was damaged, and nothing of it is published any more: %s", stream, why)
