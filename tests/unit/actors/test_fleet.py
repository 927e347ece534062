"""Hosts that hang, come back, die as they start or outlive their supervisor: what takes their place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from actors.fleet import Fleet
from actors.hosts import HostDied, HostSpec, HostUnreachable
from actors.orders import RuntimeUnavailable
from actors.supervisor import Supervisor
from tests.local_cluster import CONFIG, LocalCluster, LocalHost
from tests.unit.actors.test_supervisor import activations, create, owner, read, until


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed soon."""
    monkeypatch.setattr("actors.fleet.ANSWER_MAX", 0.05)
    monkeypatch.setattr("actors.supervisor.INFO_INTERVAL", 0.02)
    monkeypatch.setattr("actors.supervisor.SWEEP_INTERVAL", 0.05)


@pytest.fixture
async def cluster() -> AsyncIterator[LocalCluster]:
    """Two shared hosts whose leases never run out meanwhile: their own threads renew them."""
    async with LocalCluster(replace(CONFIG, lease_ttl=600.0)) as running:
        yield running


def living(cluster: LocalCluster) -> list[str]:
    return [name for name, host in cluster.factory.hosts.items() if not host.gone()]


async def test_streams_go_on_though_every_host_hangs_at_once(cluster: LocalCluster) -> None:
    """Nobody is left who could tell whose lease ran out: silence alone must lead to new hosts."""
    commands = [create("simulated?deltas=40&interval_ms=20") for _ in range(4)]
    for command in commands:
        await cluster.client.create(command)
    hung = list(cluster.factory.hosts)
    for name in hung:
        cluster.factory.hosts[name].hang()
    for command in commands:
        assert (await read(cluster, command.id))[-1]["type"] == "response.completed"
        assert len(await activations(cluster, command.id)) == 2
    assert not set(hung) & set(living(cluster)), "what was taken for dead is ended"


async def test_streams_go_on_though_every_host_dies_at_once_the_logs_writer_too(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a new host owns the log nothing can be recorded, so no start may wait for what is recorded."""
    commands = [create("simulated?deltas=40&interval_ms=10") for _ in range(4)]
    for command in commands:
        await cluster.client.create(command)
    bury, started = cluster.store.bury, len(cluster.factory.started)

    async def with_an_owner(holder: str) -> None:
        await until(lambda: len(cluster.factory.started) > started)
        await bury(holder)

    monkeypatch.setattr(cluster.store, "bury", with_an_owner)
    for host in list(cluster.factory.hosts.values()):
        host.kill()
    for command in commands:
        assert (await read(cluster, command.id))[-1]["type"] == "response.completed"
        assert len(await activations(cluster, command.id)) == 2


async def test_what_a_dead_host_ran_goes_on_before_another_is_started(cluster: LocalCluster) -> None:
    """A start takes whole processors: as long as one host lives, nobody has to wait for it."""
    command = create("simulated?deltas=40&interval_ms=20")
    await cluster.client.create(command)
    dead = await owner(cluster, command.id)
    assert dead is not None
    cluster.factory.hosts[dead].kill()
    while await owner(cluster, command.id) == dead:  # noqa: ASYNC110  (the log sets no event)
        await asyncio.sleep(0.005)
    assert len(cluster.factory.started) == 2
    assert (await read(cluster, command.id))[-1]["type"] == "response.completed"
    await until(lambda: len(living(cluster)) == 2)


async def test_of_all_that_are_missing_one_is_started_first(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = cluster.factory.start
    seen: list[int] = []

    async def told(spec: HostSpec) -> LocalHost:
        seen.append(len(living(cluster)))
        return await start(spec)

    monkeypatch.setattr(cluster.factory, "start", told)
    for host in list(cluster.factory.hosts.values()):
        host.kill()
    await until(lambda: len(living(cluster)) == 2)
    assert seen == [0, 1]


async def test_a_silent_host_gets_no_work_and_one_that_answers_again_leaves(cluster: LocalCluster) -> None:
    """It keeps what it runs; when that is over it ends, for another has taken its place."""
    slow = create("simulated?deltas=60&interval_ms=20")
    await cluster.client.create(slow)
    name = await owner(cluster, slow.id) or ""
    cluster.factory.hosts[name].hang()
    await until(lambda: cluster.supervisor._fleet.hosts[name].leaves)
    await until(lambda: len(living(cluster)) == 3)
    cluster.factory.hosts[name].wake()
    for _ in range(4):
        command = create()
        await cluster.client.create(command)
        assert (await read(cluster, command.id))[-1]["type"] == "response.completed"
        assert name not in {started.host for started in await activations(cluster, command.id)}
    assert (await read(cluster, slow.id))[-1]["type"] == "response.completed"
    assert len(await activations(cluster, slow.id)) == 1
    await until(lambda: len(living(cluster)) == 2)
    assert name not in living(cluster)


async def test_a_host_that_dies_as_it_starts_is_no_sign_of_overload(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dies(spec: HostSpec) -> LocalHost:
        raise HostDied(spec.name)

    monkeypatch.setattr(cluster.factory, "start", dies)
    with pytest.raises(RuntimeUnavailable, match="a host did not come up"):
        await cluster.supervisor.reserve("resp_" + "0" * 32, "dedicated", "simulated")


async def test_closing_ends_what_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = LocalCluster()
    given_up = asyncio.Event()

    async def never(spec: HostSpec) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    monkeypatch.setattr(cluster.factory, "start", never)
    fleet = Fleet(CONFIG, cluster.factory, lambda: 0.0, lambda model: {})
    waiting = asyncio.create_task(fleet.reserve("resp_" + "0" * 32, "dedicated", "simulated"))
    await until(lambda: bool(fleet._dedicated))
    await asyncio.sleep(0)
    await fleet.close()
    assert given_up.is_set()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_new_supervisor_goes_on_though_a_host_died_meanwhile(cluster: LocalCluster) -> None:
    """It finds the host that lives, with what runs on it, and gives what the dead one ran to others."""
    commands = [create("simulated?deltas=40&interval_ms=10") for _ in range(4)]
    for command in commands:
        await cluster.client.create(command)
    owners = [await owner(cluster, command.id) or "" for command in commands]
    await cluster.supervisor._background.aclose()
    cluster.factory.hosts[owners[0]].kill()
    cluster.factory.leave()
    await cluster.store.renew(owners[0], 0.0)  # Its lease runs out, as nobody renews it.
    second = Supervisor(cluster.config, cluster.store, cluster.factory, now=lambda: 0.0)
    await second.start()
    try:
        for command, first in zip(commands, owners, strict=True):
            assert (await read(cluster, command.id))[-1]["type"] == "response.completed"
            again = len(await activations(cluster, command.id))
            assert again == (2 if first == owners[0] else 1), "what its host still ran was left alone"
    finally:
        await second.close()


async def test_hosts_found_late_do_not_stay_beyond_those_that_are_wanted(cluster: LocalCluster) -> None:
    """A supervisor that began anew while they were busy started others."""
    extra = await cluster.factory.start(HostSpec("host-late", "shared", 8, {}))
    cluster.factory.left = [cluster.factory.started[-1]]
    await until(extra.gone)
    assert len(living(cluster)) == 2


async def test_a_host_that_does_not_answer_its_first_question_is_ended(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows it, so nobody would give it work or end it."""
    start, begun = cluster.factory.start, set(cluster.factory.hosts)

    async def start_out_of_reach(spec: HostSpec) -> LocalHost:
        host = await start(spec)
        monkeypatch.setattr(host, "info", out_of_reach)
        return host

    async def out_of_reach() -> Any:
        raise HostUnreachable("the test says so")

    monkeypatch.setattr(cluster.factory, "start", start_out_of_reach)
    with pytest.raises(RuntimeUnavailable, match="a host did not come up"):
        await cluster.supervisor.reserve("resp_1", "exclusive", "simulated")
    await until(lambda: set(living(cluster)) == begun)


async def test_replicas_hear_of_exclusive_hosts_and_not_of_those_of_one_response() -> None:
    """What they know they reach without asking; dedicated ones come and go with every response."""
    async with LocalCluster(replace(CONFIG, isolation="exclusive")) as cluster:
        await cluster.supervisor.reserve("resp_" + "0" * 32, "dedicated", "simulated")
        _, hosts = await cluster.supervisor.watch(-1, 1.0)
        assert {info.isolation for info, _ in hosts} == {"shared", "exclusive"}


async def test_a_warm_host_that_nobody_uses_gives_way_to_one_of_the_other_kind() -> None:
    """It would keep its place for ever, and what needs a host of the other kind would wait as long."""
    async with LocalCluster(replace(CONFIG, hosts_max=1)) as cluster:
        first = create()
        first = replace(first, agent={**first.agent, "isolation": "exclusive"})
        await cluster.client.create(first)
        assert (await read(cluster, first.id))[-1]["type"] == "response.completed"
        second = create(background=True)
        second = replace(second, agent={**second.agent, "isolation": "dedicated"})
        await cluster.client.create(second)
        assert (await read(cluster, second.id))[-1]["type"] == "response.completed"
