"""Pages are bounded by bytes where records are large, and few where they are small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from eventstore.events import NO_STREAM, Append, NewEvent, NewStream, Unit
from eventstore.pages import BYTES, FIRST, LEAST, next_page
from eventstore.sql.sqlite import SqliteEventStore

MOST = 128
COUNT = 300


@pytest.mark.parametrize("size", [0, 1, 100, 10_000, 100_000, BYTES, 3 * BYTES])
def test_pages_of_alike_records_soon_hold_a_mebibyte(size: int) -> None:
    """Or as many records as a page may have, or as few as it must."""
    limit = FIRST
    for _ in range(4):
        limit = next_page(limit, limit * size, MOST)
    assert limit == max(LEAST, min(MOST, BYTES // max(size, 1)))


class Counting(SqliteEventStore):
    """Counts queries, and notes how much one has read at most."""

    queries = 0
    largest = 0

    async def _all(self, query: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        rows = await super()._all(query, parameters)
        self.queries += 1
        self.largest = max(self.largest, sum(len(row[-1] or b"") for row in rows))
        return rows


@pytest.mark.parametrize(("size", "queries"), [(20, 6), (100_000, 40)])
async def test_a_stream_is_read_whole_whatever_its_records_hold(
    tmp_path: Path, size: int, queries: int
) -> None:
    store = Counting(tmp_path, may_own=True)
    for number in range(COUNT):
        new = NewStream("c", "t", "s") if number == 0 else None
        version = number - 1 if number else NO_STREAM
        await store.append(Unit([Append("a", version, 1, [NewEvent("e", b"x" * size)], new=new)]))
    for after in (-1, 0, 1, COUNT - 2, COUNT - 1, COUNT):
        store.queries = 0
        found = [record.first_version async for record in store.read("a", after)]
        assert found == list(range(after + 1, COUNT))
        assert store.queries <= queries
    assert store.largest < 2 * BYTES
    await store.aclose()
