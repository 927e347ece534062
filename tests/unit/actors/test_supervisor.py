"""Hosts die, hang and fill up; responses end all the same, once, on the same stream."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from actors.hosts import actor_of
from actors.orders import Overloaded, UnknownResponse
from eventstore.follow import follow
from runtime.config import load
from runtime.response.codec import decode
from runtime.response.commands import Create
from runtime.response.events import ActivationStarted
from runtime.response.items import new_response_id
from runtime.response.replay import ResponseReplay
from runtime.response.request import ResponseRequest
from runtime.response.wire import data_of
from tests.local_cluster import CONFIG, LocalCluster
from tests.patience import PATIENCE_S


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room, and work that waits for it, are found soon."""
    monkeypatch.setattr("actors.supervisor.INFO_INTERVAL", 0.02)
    monkeypatch.setattr("actors.supervisor.REHOME_INTERVAL", 0.05)


@pytest.fixture
async def cluster() -> AsyncIterator[LocalCluster]:
    """Two shared hosts of eight slots."""
    async with LocalCluster() as running:
        yield running


def create(model: str = "simulated", **request: Any) -> Create:
    """A command to create a response that the built-in model answers."""
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    return Create(
        id=new_response_id(os.urandom(16)),
        project="default",
        key_id=None,
        at=1,
        request=ResponseRequest(model=model, input=(message,), **request),
        agent=load(None, {}).resolve(model).public(),
    )


async def read(cluster: LocalCluster, response_id: str) -> list[dict[str, Any]]:
    """All wire events of a response, followed to its end."""
    events: list[dict[str, Any]] = []
    async with cluster.bus.subscribe(response_id) as live, asyncio.timeout(PATIENCE_S):
        replay = ResponseReplay(cluster.store, response_id)
        async with aclosing(follow(replay, live, silence=0.05)) as batches:
            async for batch in batches:
                if batch is not None:
                    events += [json.loads(data_of(frame)) for frame in batch.frames or ()]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def text(events: list[dict[str, Any]]) -> str:
    """What a client would have read."""
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


async def activations(cluster: LocalCluster, response_id: str) -> list[ActivationStarted]:
    """Where a response was run."""
    events = [event async for record in cluster.store.read(response_id) for event in decode(record)]
    return [event for event in events if isinstance(event, ActivationStarted)]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, within bounds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.005)


async def owner(cluster: LocalCluster, response_id: str) -> str | None:
    head = await cluster.store.head(response_id)
    return head.owner if head else None


async def test_a_response_runs_and_its_slot_is_free_again(cluster: LocalCluster) -> None:
    command = create()
    await cluster.client.create(command)
    events = await read(cluster, command.id)
    assert events[-1]["type"] == "response.completed"
    await until(lambda: all(host.info.running == 0 for host in cluster.supervisor._fleet.hosts.values()))


async def test_few_responses_have_a_host_each(cluster: LocalCluster) -> None:
    commands = [create("simulated?deltas=50&interval_ms=20") for _ in range(2)]
    for command in commands:
        await cluster.client.create(command)
    assert len({await owner(cluster, command.id) for command in commands}) == 2


async def test_killed_host_its_streams_go_on_elsewhere_word_by_word(cluster: LocalCluster) -> None:
    model = "simulated?deltas=60&interval_ms=10"
    undisturbed = create(model)
    await cluster.client.create(undisturbed)
    disturbed = [create(model) for _ in range(6)]
    for command in disturbed:
        await cluster.client.create(command)
    readers = [asyncio.create_task(read(cluster, command.id)) for command in disturbed]
    victim = cluster.factory.hosts[await owner(cluster, disturbed[0].id) or ""]
    await until(lambda: cluster.store._streams[disturbed[0].id].head.version > 8)
    victim.kill()
    expected = text(await read(cluster, undisturbed.id))
    for events in await asyncio.gather(*readers):
        assert text(events) == expected
        assert [event["type"] for event in events if "response" in event][-1] == "response.completed"


async def test_a_hung_host_is_replaced_when_its_lease_ends() -> None:
    async with LocalCluster(replace(CONFIG, lease_ttl=0.3)) as cluster:
        renewals = asyncio.create_task(renew_all(cluster))
        command = create("simulated?deltas=80&interval_ms=10")
        await cluster.client.create(command)
        name = await owner(cluster, command.id) or ""
        cluster.factory.hosts[name].hang()
        HUNG.add(name)
        events = await read(cluster, command.id)
        assert events[-1]["type"] == "response.completed"
        head = await cluster.store.head(command.id)
        assert head is not None
        assert head.epoch == 2
        renewals.cancel()


HUNG: set[str] = set()


async def renew_all(cluster: LocalCluster) -> None:
    """What each host's own thread does."""
    while True:
        for name in set(cluster.factory.hosts) - HUNG:
            if not cluster.factory.hosts[name].gone():
                await cluster.store.renew(name, cluster.config.lease_ttl)
        await asyncio.sleep(0.05)


async def test_with_no_slot_free_a_background_response_waits_in_the_log() -> None:
    async with LocalCluster(replace(CONFIG, hosts=1, slots=1)) as cluster:
        first, second = create("simulated?deltas=30&interval_ms=10"), create(background=True)
        await cluster.client.create(first)
        await cluster.client.create(second)
        head = await cluster.store.head(second.id)
        assert head is not None
        assert (head.state, head.owner) == ("queued", None)
        assert (await read(cluster, second.id))[-1]["type"] == "response.completed"
        assert (await read(cluster, first.id))[-1]["type"] == "response.completed"


async def test_a_full_queue_refuses_who_would_wait() -> None:
    async with LocalCluster(replace(CONFIG, hosts=1, slots=1, queue_limit=1)) as cluster:
        await cluster.client.create(create("simulated?deltas=1000&interval_ms=50"))
        await cluster.client.create(create(background=True))
        await cluster.client.create(create())
        with pytest.raises(Overloaded):
            await cluster.client.create(create())


@pytest.mark.parametrize("isolation", ["exclusive", "dedicated"])
async def test_with_no_host_left_a_client_waits_in_the_queue_too(isolation: Any) -> None:
    async with LocalCluster(replace(CONFIG, isolation=isolation, hosts_max=1)) as cluster:
        commands = [create("simulated?deltas=20&interval_ms=10") for _ in range(3)]
        for command in commands:
            await cluster.client.create(command)
        for command in commands:
            assert (await read(cluster, command.id))[-1]["type"] == "response.completed"


@pytest.mark.parametrize("isolation", ["exclusive", "dedicated"])
async def test_isolated_responses_share_no_host(isolation: Any) -> None:
    async with LocalCluster(replace(CONFIG, isolation=isolation)) as cluster:
        commands = [create("simulated?deltas=20&interval_ms=10") for _ in range(3)]
        for command in commands:
            await cluster.client.create(command)
        owners = [await owner(cluster, command.id) for command in commands]
        assert len(set(owners)) == 3
        if isolation == "dedicated":
            assert [actor_of(name or "") for name in owners] == [
                f"response:{command.id}" for command in commands
            ]
        for command in commands:
            assert (await read(cluster, command.id))[-1]["type"] == "response.completed"


async def test_a_dedicated_host_is_gone_after_its_response() -> None:
    async with LocalCluster(replace(CONFIG, isolation="dedicated")) as cluster:
        command = create()
        await cluster.client.create(command)
        await read(cluster, command.id)
        [host] = [host for name, host in cluster.factory.hosts.items() if name.startswith("response:")]
        await until(host.gone)


async def test_a_response_whose_own_host_died_gets_another() -> None:
    """Each incarnation has a lease of its own: that of the dead one is never given again."""
    async with LocalCluster(replace(CONFIG, isolation="dedicated")) as cluster:
        command = create("simulated?deltas=40&interval_ms=10")
        await cluster.client.create(command)
        first = await owner(cluster, command.id)
        assert first is not None
        cluster.factory.hosts[first].kill()
        assert (await read(cluster, command.id))[-1]["type"] == "response.completed"
        again = [name for name in cluster.factory.hosts if actor_of(name) == actor_of(first)]
        assert len(again) == 2


async def test_background_waits_for_an_exclusive_host() -> None:
    async with LocalCluster(replace(CONFIG, isolation="exclusive", hosts_max=1)) as cluster:
        commands = [create("simulated?deltas=5&interval_ms=10", background=True) for _ in range(3)]
        for command in commands:
            await cluster.client.create(command)
        for command in commands:
            assert (await read(cluster, command.id))[-1]["type"] == "response.completed"
            ran_on = {started.host for started in await activations(cluster, command.id)}
            assert {cluster.factory.kind(host) for host in ran_on} == {"exclusive"}


async def test_cancel_reaches_a_response_wherever_it_is(cluster: LocalCluster) -> None:
    running = create("simulated?deltas=1000&interval_ms=20")
    await cluster.client.create(running)
    await cluster.client.cancel(running.id, "tester")
    assert (await read(cluster, running.id))[-1]["response"]["status"] == "cancelled"
    await cluster.client.cancel(running.id, "tester")


async def test_unknown_responses_are_unknown(cluster: LocalCluster) -> None:
    with pytest.raises(UnknownResponse):
        await cluster.client.cancel("resp_" + "0" * 32, "tester")


async def test_a_transient_response_is_erased_when_its_time_is_over(monkeypatch: Any) -> None:
    monkeypatch.setattr("actors.supervisor.SWEEP_INTERVAL", 0.05)
    async with LocalCluster(replace(CONFIG, transient_after=0.0)) as cluster:
        command = create(store=False)
        await cluster.client.create(command)
        await read(cluster, command.id)
        await until(lambda: cluster.store._streams[command.id].head.state == "erased")
