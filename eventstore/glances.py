"""Where streams stand, asked of the log once for all who want to know at about the same time.

Whoever follows a stream that says nothing wants to know every second whether it missed something; thousands
of them should not ask thousands of questions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from eventstore.events import NO_STREAM
from eventstore.ports import LogReader

GATHER_S: Final = 0.05
"""How long a question waits for others to go with it."""


class Glances:
    """The questions of one process, or rather of one of its event loops."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._streams: set[str] = set()
        self._answer: asyncio.Task[Mapping[str, int]] | None = None

    async def version(self, stream: str) -> int:
        """Version of the stream's last event, or `NO_STREAM`.  Raises `StoreUnavailable`."""
        if self._answer is None:
            self._streams = set()
            self._answer = asyncio.create_task(self._ask(self._streams))
        self._streams.add(stream)
        # One who leaves must not take the answer from others.
        return (await asyncio.shield(self._answer)).get(stream, NO_STREAM)

    async def _ask(self, streams: set[str]) -> Mapping[str, int]:
        await asyncio.sleep(GATHER_S)
        self._answer = None
        return await self._reader.versions(streams)
