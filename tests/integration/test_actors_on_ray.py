"""Hosts and the supervisor as real Ray actors, with a real NATS and SQLite."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import ray

import actors
from actors import cluster
from actors.client import RuntimeClient
from actors.config import NAMESPACE, ClusterConfig
from actors.stores import open_reader
from eventstore.follow import follow
from eventstore.nats_bus import NatsLiveBus
from runtime.response.replay import ResponseReplay
from runtime.response.wire import data_of
from tests.integration.nats_server import NatsServer
from tests.patience import PATIENCE_S
from tests.unit.actors.test_supervisor import create, text

pytestmark = [pytest.mark.ray, pytest.mark.asyncio(loop_scope="module")]


class Running:
    """What the tests speak to."""

    def __init__(self, config: ClusterConfig, client: RuntimeClient) -> None:
        self.config, self.client = config, client

    async def read(self, response_id: str) -> list[dict[str, Any]]:
        """All wire events of a response, followed to its end."""
        events: list[dict[str, Any]] = []
        async with self.client.bus.subscribe(response_id) as live, asyncio.timeout(PATIENCE_S):
            replay = ResponseReplay(self.client.reader, response_id)
            async with aclosing(follow(replay, live, silence=0.2)) as batches:
                async for batch in batches:
                    if batch is not None:
                        events += [json.loads(data_of(frame)) for frame in batch.frames or ()]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        return events

    async def pid_of(self, response_id: str) -> int:
        """The process of the host that owns a response."""
        async with asyncio.timeout(PATIENCE_S):
            while True:  # A host that does not answer in time on a busy machine is replaced.
                head = await self.client.reader.head(response_id)
                assert head is not None
                for info, _ in await self.client.running():
                    if info.name == head.owner:
                        return info.pid
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A Ray of its own with warm hosts."""
    folder: Path = tmp_path_factory.mktemp("cluster")
    for name in ("nats", "data"):
        (folder / name).mkdir()
    nats = NatsServer(folder / "nats")
    nats.start()
    ray.init(address="local", namespace=NAMESPACE, include_dashboard=False, log_to_driver=False, num_cpus=2)
    config = ClusterConfig(log_url=f"sqlite:///{folder / 'data'}", nats_url=nats.url)
    await cluster.start(config)
    reader = open_reader(config)
    client = RuntimeClient(
        config,
        reader,
        await NatsLiveBus.connect(nats.url),
        cluster.RaySupervisor(config),
    )
    await client.start()
    yield Running(config, client)
    await client.aclose()
    await client.bus.aclose()
    await reader.aclose()
    await cluster.stop()
    ray.shutdown()
    nats.stop()


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition that costs a look at the system, within bounds."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.05)


async def test_a_killed_hosts_streams_go_on_in_another_process(running: Running) -> None:
    model = "simulated?deltas=100&interval_ms=20"
    undisturbed = create(model)
    disturbed = [create(model) for _ in range(8)]
    for command in (undisturbed, *disturbed):
        await running.client.create(command)
    readers = [asyncio.create_task(running.read(command.id)) for command in disturbed]
    victim = await running.pid_of(disturbed[0].id)
    expected = (
        text(await running.read(undisturbed.id)) if victim != await running.pid_of(undisturbed.id) else ""
    )

    async def halfway() -> bool:
        head = await running.client.reader.head(disturbed[0].id)
        return head is not None and head.version > 8

    await until(halfway)
    os.kill(victim, signal.SIGKILL)
    texts = {text(events) for events in await asyncio.gather(*readers)}
    assert texts == {expected or text(await running.read(undisturbed.id))}


async def test_a_driver_looks_at_a_response_and_cancels_it(running: Running) -> None:
    command = create("simulated?deltas=1000&interval_ms=20")
    await running.client.create(command)
    handle = actors.get(command.id)
    assert (await asyncio.to_thread(handle.state))["status"] == "in_progress"
    first = await asyncio.to_thread(lambda: next(handle.events()))
    assert first["type"] == "response.created"
    assert (await asyncio.to_thread(handle.cancel))["status"] == "cancelled"
    events = await asyncio.to_thread(lambda: list(handle.events(after=first["sequence_number"])))
    assert events[-1]["response"]["status"] == "cancelled"


@pytest.mark.parametrize("isolation", ["exclusive", "dedicated"])
async def test_isolation_gives_a_response_a_process_of_its_own(running: Running, isolation: Any) -> None:
    # Far longer than any start of a process takes: they run until they are cancelled.
    commands = [create("simulated?deltas=10000&interval_ms=100") for _ in range(2)]
    commands = [replace(command, agent={**command.agent, "isolation": isolation}) for command in commands]
    for command in commands:
        await running.client.create(command)
    pids = {await running.pid_of(command.id) for command in commands}
    assert len(pids) == 2
    supervisor = running.client._supervisor
    assert isinstance(supervisor, cluster.RaySupervisor)
    [line] = supervisor._lines._lines.values()
    assert line.has_answered, "hosts are reserved over the socket of this node"
    if isolation == "dedicated":
        assert ray.get_actor(f"response:{commands[0].id}", namespace=NAMESPACE)
    for command in commands:
        await running.client.cancel(command.id, "tester")
        assert (await running.read(command.id))[-1]["response"]["status"] == "cancelled"


async def test_a_killed_supervisor_comes_back_and_finds_its_hosts(running: Running) -> None:
    before = {info.name for info, _ in await running.client.running() if info.isolation == "shared"}
    supervisor = ray.get_actor("supervisor", namespace=NAMESPACE)
    pid = await supervisor.pid.remote()
    os.kill(pid, signal.SIGKILL)

    async def back() -> bool:
        try:
            return bool(await supervisor.pid.remote() != pid)
        except ray.exceptions.RayActorError:
            return False

    await until(back)
    assert {info.name for info, _ in await running.client.running() if info.isolation == "shared"} == before
    # Where the former one took reservations nobody listens any more.
    alone = create()
    alone = replace(alone, agent={**alone.agent, "isolation": "exclusive"})
    await running.client.create(alone)
    assert (await running.read(alone.id))[-1]["type"] == "response.completed"
    command = create()
    await running.client.create(command)
    assert (await running.read(command.id))[-1]["type"] == "response.completed"
