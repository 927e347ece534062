"""Pages of a log whose streams are sealed: one bad block harms nobody else, and none is unpacked for each."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from eventstore.block import unpack
from eventstore.errors import LogCorrupted
from eventstore.events import Block, Record
from eventstore.sealing import seal
from eventstore.sql.sqlite import SqliteEventStore
from eventstore.sql.sqlite_connection import DATABASE
from eventstore.verify import audit
from tests.contract.store_contract import create, erase, more, unit, whole_log
from tests.contract.test_sealed_documents import answered

NAMES = ("one", "two", "three")


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteEventStore]:
    """Three sealed streams, record by record beside each other: `one` at 1, 4, 7 ..., `two` at 2, 5, 8 ..."""
    store = await SqliteEventStore.open(tmp_path, may_own=True)
    await store.append(unit(*(create(name) for name in NAMES)))
    for version in range(19):
        await store.append(unit(*(more(name, version) for name in NAMES)))
    assert (await seal(store, await store.heads(), "the test", "")).streams == 3
    yield store
    await store.aclose()


async def test_a_bad_block_is_missed_only_where_its_records_lie(
    log: SqliteEventStore, tmp_path: Path
) -> None:
    before = await whole_log(log)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection, connection:
        connection.execute("DROP TRIGGER blocks_no_update")
        connection.execute(
            "UPDATE blocks SET data = x'0200' WHERE stream_id = (SELECT id FROM streams WHERE name = 'two')"
        )
    for record in before:
        if record.stream == "two":
            with pytest.raises(LogCorrupted, match="'two', version 0"):
                await log.read_all(record.position - 1, 1)
        else:
            assert await log.read_all(record.position - 1, 1) == [record]
    assert await log.read_all(2, 2) == before[2:4]
    with pytest.raises(LogCorrupted, match="'two', version 0"):
        await log.read_all(0)
    found = await audit(log)
    assert found.first is not None
    assert (found.first.stream, found.first.version, found.wrong) == ("two", 0, 2)


async def test_an_erasure_leaves_neither_a_block_nor_what_lies_in_its_row(tmp_path: Path) -> None:
    """They were in the database's file, on pages with what stays."""
    store = await SqliteEventStore.open(tmp_path, may_own=True)
    head, _ = await answered(store, "a"), await answered(store, "b")
    await seal(store, await store.heads(), "the test", "")
    await store.aclose()
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        kept = connection.execute("SELECT data, salt, documents FROM blocks ORDER BY stream_id").fetchall()
    # What is longer than a page's share of a row goes on elsewhere.
    of_a, of_b = ([part[:100] for part in row] for row in kept)
    assert all(part in (tmp_path / DATABASE).read_bytes() for part in (*of_a, *of_b))
    store = await SqliteEventStore.open(tmp_path, may_own=True)
    await store.append(unit(erase("a", head.version, epoch=2)))
    await store.aclose()
    left = (tmp_path / DATABASE).read_bytes()
    assert [part in left for part in (*of_a, *of_b)] == [False] * 3 + [True] * 3


async def test_a_pass_over_the_log_unpacks_each_block_once(
    log: SqliteEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, unpacked = await whole_log(log), list[str]()

    def noted(block: Block, salt: bytes | None) -> list[Record]:
        unpacked.append(block.stream)
        return unpack(block, salt)

    monkeypatch.setattr("eventstore.sql.log_reader.unpack", noted)
    assert await whole_log(log, 4) == before
    assert sorted(unpacked) == sorted(NAMES)
    monkeypatch.setattr("eventstore.sql.log_reader._KEPT_BYTES_MAX", 0)
    assert await whole_log(log, 4) == before
    assert len(unpacked) > 2 * len(NAMES), "what there is no room for is unpacked again"
