"""What becomes of a response whose recorded bytes were damaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from actors.response_actor import ResponseActor
from eventstore.errors import LogCorrupted
from eventstore.memory import MemoryLiveBus
from eventstore.sealing import seal
from eventstore.sql.sqlite import SqliteEventStore
from runtime.response.replay import fold_stream
from serve_app.response_list import response_page
from serve_app.response_reader import ResponseReader
from tests.unit.actors.kit import ID, ScriptedModel, World, always, create, says


def flip(data_dir: Path) -> None:
    """Change one bit of the only block, behind its triggers' back."""
    with closing(sqlite3.connect(data_dir / "log.db")) as connection:
        connection.execute("DROP TRIGGER blocks_no_update")
        ((data,),) = connection.execute("SELECT data FROM blocks")
        assert len(data) > 40
        changed = bytes((*data[:40], data[40] ^ 1, *data[41:]))
        connection.execute("UPDATE blocks SET data = ?", (changed,))
        connection.commit()


async def damaged(data_dir: Path, world: World) -> SqliteEventStore:
    """A log of one response, which is sealed and cannot be read."""
    store = await SqliteEventStore.open(data_dir, may_own=True)
    first = actor(world, store)
    await first.create(create(), start=True)
    await first.run()
    head = await store.head(ID)
    assert head is not None
    assert (await seal(store, [head], "the test", "")).streams == 1
    await store.aclose()
    flip(data_dir)
    return await SqliteEventStore.open(data_dir, may_own=True)


def actor(world: World, store: SqliteEventStore) -> ResponseActor:
    return ResponseActor(replace(world.ports(store=store), bus=MemoryLiveBus()), ID)


async def test_a_damaged_response_keeps_no_other_from_being_listed(tmp_path: Path) -> None:
    store = await damaged(tmp_path, World(ScriptedModel(always(*says("Hello")))))
    head = await store.head(ID)
    assert head is not None
    reader = ResponseReader(store, head.tenant)
    with pytest.raises(LogCorrupted):
        await reader.body(ID)
    listed = await response_page(reader, status="", model=None, after=None, newest_first=True, limit=10)
    assert orjson.loads(listed)["data"] == []
    await store.aclose()


async def test_a_damaged_response_is_deleted_all_the_same(tmp_path: Path) -> None:
    world = World(ScriptedModel(always(*says("Hello"))))
    store = await damaged(tmp_path, world)
    with pytest.raises(LogCorrupted):
        await fold_stream(store, ID)
    await actor(world, store).delete("key_1")
    await actor(world, store).delete("key_1")  # Again, as a client does that did not hear the answer.
    head = await store.head(ID)
    assert head is not None
    assert (head.state, head.owner) == ("erased", None)
    await store.aclose()
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        assert connection.execute("SELECT data FROM blocks").fetchall() == [(b"",)]
        tombstones = connection.execute("SELECT count(*) FROM erasures").fetchall()
        assert tombstones == [(1,)]
