"""Reads the log from its Postgres database: each query takes a connection of the pool and gives it back."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from eventstore.sql.clock import wall_clock
from eventstore.sql.log_reader import SqlLogReader
from eventstore.sql.postgres_connection import PostgresDatabase
from eventstore.unit import storable

_VERSIONS: Final = "SELECT name, version FROM streams WHERE name = ANY(CAST(:streams AS text[]))"
_NAME: Final = re.compile(r"(?<!:):(\w+)")


class PostgresLogReader(SqlLogReader):
    """`LogReader` over a Postgres database; it writes nothing.

    `now` gives wall-clock milliseconds; claims expire by it.
    """

    def __init__(self, url: str, *, now: Callable[[], int] = wall_clock) -> None:
        super().__init__(now=now)
        self._database = PostgresDatabase(url)

    async def aclose(self) -> None:
        """Let go of the database; every later call raises `StoreUnavailable`."""
        await self._database.aclose()

    async def versions(self, streams: Collection[str]) -> Mapping[str, int]:
        """See `LogReader`."""
        rows = await self._all(_VERSIONS, {"streams": [each for each in streams if storable(each)]})
        return {row[0]: row[1] for row in rows}

    async def _all(self, query: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        if not all(storable(value) for value in parameters.values() if isinstance(value, str)):
            return []  # Nothing has such a name, and Postgres would refuse the question.
        text, names = _numbered(query)
        return await self._database.fetch(text, *(parameters[name] for name in names))


@lru_cache(maxsize=256)
def _numbered(query: str) -> tuple[str, tuple[str, ...]]:
    """The query with `$1` for the first `:name`, and so on; and the names in that order."""
    names = tuple(dict.fromkeys(_NAME.findall(query)))
    return _NAME.sub(lambda found: f"${names.index(found[1]) + 1}", query), names
