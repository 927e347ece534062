"""What becomes of responses after their end: they are sealed, or erased where they are not to be kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from eventstore.events import SEALED, SEALS
from eventstore.verify import audit
from tests.local_cluster import CONFIG, LocalCluster
from tests.unit.actors.test_supervisor import create, read, until


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.supervisor.SWEEP_INTERVAL", 0.05)
    monkeypatch.setattr("actors.supervisor.SEAL_INTERVAL", 0.05)


@asynccontextmanager
async def ran(**config: Any) -> AsyncIterator[tuple[LocalCluster, str, list[dict[str, Any]]]]:
    """A cluster, the id of a response that ran there to its end, and what it showed."""
    async with LocalCluster(replace(CONFIG, **config)) as cluster:
        command = create("simulated?deltas=20")
        await cluster.client.create(command)
        yield cluster, command.id, await read(cluster, command.id)


def is_sealed(cluster: LocalCluster, stream: str) -> bool:
    return cluster.store._streams[stream].head.sealed


async def test_what_ended_is_sealed_after_its_time_and_shows_the_same() -> None:
    async with ran(seal_after=0.0) as (cluster, stream, shown):
        await until(lambda: is_sealed(cluster, stream))
        assert await read(cluster, stream) == shown
        (event,) = [record async for record in cluster.store.read(SEALS)]
        assert event.types == (SEALED,)
        assert (await audit(cluster.store)).first is None


async def test_a_sealed_response_is_deleted_by_its_owner() -> None:
    async with ran(seal_after=0.0) as (cluster, stream, _):
        await until(lambda: is_sealed(cluster, stream))
        await cluster.client.delete(stream, "its owner")
        assert cluster.store._streams[stream].head.state == "erased"
        assert (await audit(cluster.store)).first is None


async def test_what_is_not_to_be_kept_is_erased_and_the_log_says_why() -> None:
    async with ran(retention=1e-9) as (cluster, stream, _):
        await until(lambda: cluster.store._streams[stream].head.state == "erased")
        *erased, tombstone = [record async for record in cluster.store.read(stream)]
        assert {record.payload for record in erased} == {None}
        assert tombstone.payload is not None
        assert b'"retention"' in tombstone.payload[0]


async def test_what_was_erased_is_sealed_too() -> None:
    async with ran(retention=1e-9, seal_after=0.0) as (cluster, stream, _):
        await until(lambda: is_sealed(cluster, stream))
        await until(lambda: cluster.store._streams[stream].head.state == "erased")
        assert (await audit(cluster.store)).first is None


async def test_what_does_not_verify_is_left_alone_and_hides_nothing_behind_it() -> None:
    async with LocalCluster(replace(CONFIG, seal_after=1.0)) as cluster:
        bad, good = create(), create()
        for command in (bad, good):
            await cluster.client.create(command)
            await read(cluster, command.id)
        stream = cluster.store._streams[bad.id]
        stream.records[0] = replace(stream.records[0], digest=bytes(32))
        await until(lambda: is_sealed(cluster, good.id))
        assert not is_sealed(cluster, bad.id)


async def test_what_cannot_be_erased_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with LocalCluster(replace(CONFIG, retention=1.0)) as cluster:
        bad, good = create(), create()
        await cluster.client.create(bad)
        await read(cluster, bad.id)
        stream = cluster.store._streams[bad.id]
        stream.records[0] = replace(
            stream.records[0], types=("of.a.later.version",) * stream.records[0].count
        )
        await until(lambda: f"{bad.id} was not erased" in caplog.text)
        await cluster.client.create(good)
        await read(cluster, good.id)
        await until(lambda: cluster.store._streams[good.id].head.state == "erased")
        assert caplog.text.count(f"{bad.id} was not erased") == 1
