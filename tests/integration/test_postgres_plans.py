"""How Postgres goes about a question: what it looks at does not grow with the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import orjson

from eventstore.sql.postgres import PostgresEventStore
from eventstore.sql.postgres_reader import PostgresLogReader, _numbered
from tests.contract.store_contract import create, more, unit

STREAMS = 100
RECORDS = 20


class _Plans(PostgresLogReader):
    """Notes how many rows Postgres looks at in any one step of answering."""

    def __init__(self, url: str, connection: asyncpg.Connection) -> None:
        super().__init__(url)
        self._connection = connection
        self.rows = 0.0

    async def _all(self, query: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        text, names = _numbered(query)
        asked = f"EXPLAIN (ANALYZE, FORMAT JSON) {text}"
        explained = await self._connection.fetchval(asked, *(parameters[name] for name in names))
        assert explained is not None, "a plan is always told"
        self.rows = max(self.rows, _rows(orjson.loads(explained)[0]["Plan"]))
        return await super()._all(query, parameters)


def _rows(plan: Mapping[str, Any]) -> float:
    """The most rows that one step gives in all its turns."""
    own = float(plan["Actual Rows"] * plan["Actual Loops"])
    return max([own, *map(_rows, plan.get("Plans", ()))])


async def test_a_page_of_the_log_is_read_from_where_it_begins(postgres: str) -> None:
    """Neither its records nor their payloads are looked through from the first on."""
    store = PostgresEventStore(postgres)
    names = [f"s{number}" for number in range(STREAMS)]
    await store.append(unit(*map(create, names)))
    for version in range(RECORDS - 1):
        await store.append(unit(*(more(name, version) for name in names)))
    await store.aclose()
    connection = await asyncpg.connect(postgres)
    await connection.execute("ANALYZE")  # As the server does by itself after a while.
    log = _Plans(postgres, connection)
    page = await log.read_all(STREAMS * RECORDS - 100, 20)
    await log.aclose()
    await connection.close()
    assert len(page) == 20
    assert 20 <= log.rows <= 100
