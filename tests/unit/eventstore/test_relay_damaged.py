"""What was damaged is not published, is named once, and keeps no other stream from its subscribers."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from eventstore.relay import Relay
from eventstore.renders import Renders
from eventstore.sealing import seal
from eventstore.sql.sqlite import SqliteEventStore
from eventstore.sql.sqlite_connection import DATABASE
from tests.contract.store_contract import create, more, unit, whole_log
from tests.relayed import StreamReplay
from tests.unit.eventstore.test_relay_order import Public, Scene, Tap, compose, play, stop

NAMES = ("one", "two", "three")
EVENTS = 20


async def test_a_damaged_block_silences_its_own_stream_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Records of the others lie between those that cannot be read, and none of them is missed."""
    store = await SqliteEventStore.open(tmp_path, may_own=True)
    await store.append(unit(*(create(name) for name in NAMES)))
    for version in range(EVENTS - 1):
        await store.append(unit(*(more(name, version, f"{name} {version}".encode()) for name in NAMES)))
    everything = await whole_log(store)
    assert (await seal(store, await store.heads(), "the test", "")).streams == len(NAMES)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection, connection:
        connection.execute("DROP TRIGGER blocks_no_update")
        connection.execute(
            "UPDATE blocks SET data = x'00' WHERE stream_id = (SELECT id FROM streams WHERE name = 'two')"
        )

    async def open_replay(stream: str) -> StreamReplay | None:
        return StreamReplay(store, stream) if stream in NAMES else None

    public = Public()
    relay = Relay(store, Tap(), public, Renders(open_replay).batch, compose)
    task = asyncio.create_task(relay.run())
    async with asyncio.timeout(60):
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
