"""Responses that nobody would run any more are found, whoever died or was not heard; none is stolen."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from actors.host import ActorHost
from actors.hosts import HostUnreachable
from actors.orders import (
    Answer,
    CancelOrder,
    CreateOrder,
    HostInfo,
    Moved,
    Order,
    PlacementError,
    ResumeOrder,
    RuntimeUnavailable,
)
from actors.response_actor import ResponseActor
from eventstore.events import Head
from runtime.response.items import new_response_id
from tests.local_cluster import CONFIG, LocalCluster, LocalHost
from tests.patience import PATIENCE_S
from tests.unit.actors.kit import ScriptedModel as Scripted
from tests.unit.actors.kit import World, always, says
from tests.unit.actors.kit import create as scripted
from tests.unit.actors.test_supervisor import activations, create, read, until


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalCluster]:
    """Two shared hosts, looked after often, whose leases never run out meanwhile."""
    monkeypatch.setattr("actors.supervisor.SWEEP_INTERVAL", 0.05)
    async with LocalCluster(replace(CONFIG, lease_ttl=600.0)) as running:
        yield running


def some_host(cluster: LocalCluster) -> ActorHost:
    host: LocalHost = next(iter(cluster.factory.hosts.values()))
    assert host._host is not None
    return host._host


async def head_of(cluster: LocalCluster, response_id: str) -> Head:
    head = await cluster.store.head(response_id)
    assert head is not None
    return head


async def test_queued_work_runs_though_no_hint_came(cluster: LocalCluster) -> None:
    """The host that queued it died before it told."""
    command = replace(create(background=True), queued=True)
    await ResponseActor(some_host(cluster)._ports, command.id).create(command, start=False)
    assert (await read(cluster, command.id))[-1]["type"] == "response.completed"


async def test_what_began_and_belongs_to_nobody_goes_on(cluster: LocalCluster) -> None:
    """Somebody took it in order to cancel it and died before the end was recorded."""
    command = create("simulated?deltas=20&interval_ms=5")
    await cluster.client.create(command)
    await cluster.store.take(command.id, epoch=(await head_of(cluster, command.id)).epoch, owner=None)
    assert (await read(cluster, command.id))[-1]["type"] == "response.completed"


async def test_what_a_host_owns_but_does_not_run_goes_on(cluster: LocalCluster) -> None:
    """The host gave the create up, and then it was committed after all."""
    command, host = create(), some_host(cluster)
    await ResponseActor(host._ports, command.id).create(command, start=True)
    await host.reclaim()
    assert (await read(cluster, command.id))[-1]["type"] == "response.completed"


async def test_a_host_keeps_what_it_runs(cluster: LocalCluster) -> None:
    command = create("simulated?deltas=20&interval_ms=5")
    await cluster.client.create(command)
    for host in cluster.factory.hosts.values():
        assert host._host is not None
        await host._host.reclaim()
    assert (await read(cluster, command.id))[-1]["type"] == "response.completed"
    assert len(await activations(cluster, command.id)) == 1


async def test_a_host_that_refuses_to_go_on_is_named_and_another_try_is_made(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    command = create("simulated?deltas=20&interval_ms=5")
    await cluster.client.create(command)
    resume, refused = ActorHost._resume, 0

    async def refuse_once(host: ActorHost, response_id: str, epoch: int) -> None:
        nonlocal refused
        refused += 1
        if refused == 1:
            raise ValueError("a mistake")
        await resume(host, response_id, epoch)

    monkeypatch.setattr(ActorHost, "_resume", refuse_once)
    cluster.factory.hosts[(await head_of(cluster, command.id)).owner or ""].kill()
    assert (await read(cluster, command.id))[-1]["type"] == "response.completed"
    assert refused > 1
    assert f"{command.id} was not resumed by" in caplog.text


async def test_whoever_cancels_what_keeps_moving_is_told_to_try_again(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def moved(host: ActorHost, orders: Sequence[Order]) -> Answer:
        return Answer([Moved(order.response_id) for order in orders if isinstance(order, CancelOrder)], 1)

    command = create("simulated?deltas=20&interval_ms=5")
    await cluster.client.create(command)
    monkeypatch.setattr("actors.client.PATIENCE", 0.2)
    monkeypatch.setattr(ActorHost, "obey", moved)
    with pytest.raises(RuntimeUnavailable, match="runs elsewhere by now"):
        await cluster.client.cancel(command.id, "key_1")


async def test_an_overtaken_order_steals_nothing(cluster: LocalCluster) -> None:
    """A host took the queue's oldest while the supervisor sent it to another one."""
    command = create("simulated?deltas=20&interval_ms=5")
    await cluster.client.create(command)
    head = await head_of(cluster, command.id)
    late = [ResumeOrder(command.id, head.epoch - 1)]
    answer = await cluster.factory.hosts[_other(cluster, head.owner)].obey(late)
    assert answer.outcomes == [None]
    assert (await read(cluster, command.id))[-1]["type"] == "response.completed"
    assert len(await activations(cluster, command.id)) == 1


def _other(cluster: LocalCluster, owner: str | None) -> str:
    return next(name for name in cluster.factory.hosts if name != owner)


async def test_a_head_that_was_handed_back_while_it_ended_says_so_again(cluster: LocalCluster) -> None:
    """Otherwise it would wait in the queue for ever, and nothing could continue it."""
    command = create()
    await cluster.client.create(command)
    await read(cluster, command.id)
    epoch = (await head_of(cluster, command.id)).epoch
    await cluster.store.take(command.id, epoch=epoch, owner=None, state="queued")
    await until(lambda: cluster.store._streams[command.id].head.state == "completed")


async def test_a_host_that_cannot_be_reached_for_a_moment_is_not_buried(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection broke; its process, its lease and its responses are well."""
    command = create("simulated?deltas=20&interval_ms=5")
    await cluster.client.create(command)
    host = cluster.factory.hosts[(await head_of(cluster, command.id)).owner or ""]
    asked = asyncio.Event()

    async def unreachable() -> HostInfo:
        asked.set()
        raise HostUnreachable(host.name)

    monkeypatch.setattr(host, "info", unreachable)
    await asyncio.wait_for(asked.wait(), PATIENCE_S)
    assert (await read(cluster, command.id))[-1]["type"] == "response.completed"
    assert len(await activations(cluster, command.id)) == 1
    assert not cluster.store._buried


async def test_one_order_that_meets_a_mistake_harms_no_other() -> None:
    """Orders travel together; a mistake of ours in one is told to the one who sent it."""
    world = World(Scripted(always(*says("a"))))
    host = ActorHost(world.ports(), isolation="shared", slots=8, queue_limit=8)
    broken = scripted(id=new_response_id(os.urandom(16)), input=({"type": "message"}, None))
    outcomes = (await host.obey([CreateOrder(broken), CreateOrder(scripted())])).outcomes
    assert [type(outcome) for outcome in outcomes] == [PlacementError, type(None)]
    await until(lambda: world.store._streams[scripted().id].head.state == "completed")


async def test_a_transient_response_that_must_wait_hides_none_whose_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.supervisor.SWEEP_INTERVAL", 0.05)
    monkeypatch.setattr("actors.backlog.PAGE", 1)
    async with LocalCluster(replace(CONFIG, transient_after=0.0)) as cluster:
        waiting, due = create(store=False, background=True), create(store=False)
        for command in (waiting, due):
            await cluster.client.create(command)
            await read(cluster, command.id)
        await until(lambda: cluster.store._streams[due.id].head.state == "erased")
        assert (await head_of(cluster, waiting.id)).state == "completed"


async def test_a_driver_that_cancels_while_hosts_die_is_told_to_try_again(cluster: LocalCluster) -> None:
    command = create("simulated?deltas=1000&interval_ms=20")
    await cluster.client.create(command)
    for host in cluster.factory.hosts.values():
        host.kill()
    refusal = await cluster.supervisor.command(CancelOrder(command.id, "driver"))
    assert isinstance(refusal, PlacementError)
