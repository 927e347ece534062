"""What was damaged is not published, is named once, and keeps no other stream from its subscribers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from eventstore.damaged import Damaged
from eventstore.errors import UnknownFormat
from eventstore.events import Record
from eventstore.relay import Relay
from eventstore.renders import Renders
from eventstore.sealing import seal
from eventstore.sql.sqlite import SqliteEventStore
from eventstore.sql.sqlite_connection import DATABASE
from eventstore.verify import audit
from tests.contract.store_contract import create, more, unit, whole_log
from tests.patience import PATIENCE_S
from tests.relayed import StreamReplay
from tests.unit.eventstore.test_relay_order import Public, Scene, Tap, compose, play, stop

NAMES = ("one", "two", "three")
EVENTS = 20


async def sealed(store: SqliteEventStore) -> Sequence[Record]:
    """All records of a log of three sealed streams, which lie between each other's."""
    await store.append(unit(*(create(name) for name in NAMES)))
    for version in range(EVENTS - 1):
        await store.append(unit(*(more(name, version, f"{name} {version}".encode()) for name in NAMES)))
    everything = await whole_log(store)
    assert (await seal(store, await store.heads(), "the test", "")).streams == len(NAMES)
    return everything


def rewrite(folder: Path, data: str) -> None:
    """Put this SQL into the place of what the block of `two` holds, behind its triggers' back."""
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute("DROP TRIGGER IF EXISTS blocks_no_update")
        connection.execute(
            f"UPDATE blocks SET data = {data} WHERE stream_id = (SELECT id FROM streams WHERE name = 'two')"
        )


def relayed(store: SqliteEventStore, public: Public) -> Relay:
    async def open_replay(stream: str) -> StreamReplay | None:
        return StreamReplay(store, stream) if stream in NAMES else None

    return Relay(store, Tap(), public, Renders(open_replay).batch, compose)


async def test_what_a_later_version_sealed_is_waited_for(tmp_path: Path) -> None:
    """All before it is published, nothing behind it, and it is never counted as damaged."""
    store = await SqliteEventStore.open(tmp_path, may_own=True)
    everything = await sealed(store)
    rewrite(tmp_path, "CAST(x'03' || substr(data, 2) AS BLOB)")
    public = Public()
    relay = relayed(store, public)
    task = asyncio.create_task(relay.run())
    async with asyncio.timeout(PATIENCE_S):
        while relay.healthy:  # noqa: ASYNC110  (it sets no event)
            await asyncio.sleep(0.01)
    assert "'two' is sealed in a format that only a later version can read" in str(relay.problem)
    assert (relay.position, len(relay.damaged)) == (1, 0)
    first = next(record for record in everything if record.stream == "two")
    assert not await Damaged(store).explains(first)
    with pytest.raises(UnknownFormat):
        await audit(store)
    rewrite(tmp_path, "CAST(x'02' || substr(data, 2) AS BLOB)")
    async with asyncio.timeout(PATIENCE_S):
        while relay.position < len(everything) + 1:  # noqa: ASYNC110  (it sets no event)
            await asyncio.sleep(0.01)
    assert public.heard == [payload.decode() for record in everything for payload in record.payload or ()]
    await stop(task)
    await store.aclose()


async def test_a_damaged_block_silences_its_own_stream_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Records of the others lie between those that cannot be read, and none of them is missed."""
    store = await SqliteEventStore.open(tmp_path, may_own=True)
    everything = await sealed(store)
    rewrite(tmp_path, "x'0200'")
    public = Public()
    relay = relayed(store, public)
    task = asyncio.create_task(relay.run())
    async with asyncio.timeout(PATIENCE_S):
        while relay.position < len(everything) + 1:  # noqa: ASYNC110  (it sets no event)
            await asyncio.sleep(0.01)
    assert public.heard == [
        payload.decode()
        for record in everything
        for payload in record.payload or ()
        if record.stream != "two"
    ]
    assert relay.healthy
    assert len(relay.damaged) == 1
    assert caplog.text.count("stream two was damaged") == 1
    await stop(task)
    await store.aclose()


def test_an_edited_record_that_cannot_be_shown_is_left_out() -> None:
    """Nobody will ever be able to show it; one that is whole is waited for."""

    async def main() -> None:
        scene = Scene()
        for stream in ("a", "b", "a", "b"):
            await scene.log.commit(stream)
        edited = scene.log.store._streams["b"].records
        edited[0] = replace(edited[0], payload=(b"something else",))
        scene.log.unknown = "b"
        relay = scene.relay()
        task = asyncio.create_task(relay.run())
        await asyncio.sleep(5)
        assert scene.public.heard == ["a-0", "a-1"]
        assert relay.healthy
        assert "b" in relay.damaged
        await stop(task)

    play(main())
