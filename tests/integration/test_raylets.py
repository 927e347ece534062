"""Several nodes: one of them dies and another is cut off, while clients listen to what their hosts say."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson
import psutil
import pytest
import pytest_asyncio
import ray
from ray.cluster_utils import Cluster

from actors import cluster
from actors.client import RuntimeClient
from actors.config import NAMESPACE, ClusterConfig
from actors.orders import HostInfo
from actors.stores import open_reader
from eventstore.follow import follow
from eventstore.nats_bus import NatsLiveBus
from runtime.response.codec import decode
from runtime.response.events import ActivationStarted
from runtime.response.replay import ResponseReplay
from runtime.response.wire import data_of
from serve_app.launch.ports import free_port
from tests.e2e.log import findings
from tests.integration.nats_server import NatsServer
from tests.patience import PATIENCE_S
from tests.postgres_server import server
from tests.unit.actors.test_supervisor import create, text

pytestmark = [pytest.mark.ray, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

STREAMS = 12
DELTAS = 200
MODEL = f"simulated?deltas={DELTAS}&interval_ms=50"
NOTICED = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""Ray's head takes a node for dead after 4 s, and not after 67."""


@dataclass
class Nodes:
    """What the tests speak to."""

    config: ClusterConfig
    client: RuntimeClient
    raylets: dict[str, psutil.Process]
    """Of the nodes without Ray's head, by node."""

    async def hosts(self) -> list[HostInfo]:
        """Those that are known."""
        return [info for info, _ in await self.client.running()]

    async def activations(self, response_id: str) -> list[ActivationStarted]:
        """Where a response was run, the first one first."""
        records = self.client.reader.read(response_id)
        events = [event async for record in records for event in decode(record)]
        return [event for event in events if isinstance(event, ActivationStarted)]


@dataclass
class Listener:
    """One client that follows a response from its creation to its end."""

    nodes: Nodes
    frames: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.command = create(MODEL)
        self.task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        client = self.nodes.client
        replay = ResponseReplay(client.reader, self.command.id)
        async with client.bus.subscribe(self.command.id) as live, asyncio.timeout(PATIENCE_S):
            await client.create(self.command)
            async with aclosing(follow(replay, live)) as batches:
                async for batch in batches:
                    self.frames += (batch and batch.frames) or ()

    async def read(self) -> str:
        """The whole text, once all of it was heard, each number and one end, and is what the log shows."""
        await self.task
        events = [orjson.loads(data_of(frame)) for frame in self.frames]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        ends = [event["type"] for event in events if event["type"] == "response.completed"]
        assert ends == [events[-1]["type"]]
        replay = ResponseReplay(self.nodes.client.reader, self.command.id)
        shown = [frame async for batch in replay.read(-1) for frame in batch.frames or ()]
        assert self.frames == shown
        return text(events)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Nodes]:
    """Ray's head and two further nodes, each with a host, and a log in Postgres; at last it is whole."""
    name = f"log_{secrets.token_hex(8)}"
    usual: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20}
    with NatsServer(tmp_path_factory.mktemp("nats")) as nats:
        config = ClusterConfig(log_url=server().make(name), nats_url=nats.url, hosts=3)
        made = Cluster(
            initialize_head=True,
            head_node_args={
                **usual,
                "include_dashboard": False,
                "dashboard_agent_listen_port": free_port(),
                "_system_config": NOTICED,
            },
        )
        try:
            others = [made.add_node(**usual) for _ in range(2)]
            ray.init(address=made.address, namespace=NAMESPACE, log_to_driver=False)
            await cluster.start(config)
            reader = open_reader(config)
            bus = await NatsLiveBus.connect(nats.url)
            client = RuntimeClient(config, reader, bus, cluster.RaySupervisor(config))
            await client.start()
            raylets = {
                node.node_id: psutil.Process(node.all_processes["raylet"][0].process.pid) for node in others
            }
            yield Nodes(config, client, raylets)
            for end in (client.aclose, bus.aclose, reader.aclose, cluster.stop):
                async with asyncio.timeout(PATIENCE_S):
                    await end()
        finally:
            ray.shutdown()
            made.shutdown()
        assert await findings(config.log_url) == []
    server().drop(name)


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for it, within bounds."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110  (processes and frames set no event)
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise AssertionError(what) from error


async def disturb(nodes: Nodes, number: signal.Signals) -> None:
    """Send a signal to the raylet of a node in the middle of every answer.

    What it ran goes on on other nodes, every client reads the same words, and its hosts end.
    """
    listeners = [Listener(nodes) for _ in range(STREAMS)]
    await until(lambda: all(len(one.frames) > 10 for one in listeners), "the middle of every answer")
    node, raylet = nodes.raylets.popitem()
    hosts = [psutil.Process(host.pid) for host in await nodes.hosts() if host.node == node]
    raylet.send_signal(number)
    words = {await one.read() for one in listeners}
    ways = [[each.node for each in await nodes.activations(one.command.id)] for one in listeners]
    moved = [way for way in ways if way[0] == node]
    assert moved, "the node ran none of them"
    assert all(len(way) > 1 and way[-1] != node for way in moved), ways
    assert all(len(way) == 1 for way in ways if way[0] != node), "others were disturbed"
    assert len(words) == 1
    await until(lambda: not any(map(lives, hosts)), "the end of its hosts")


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_each_node_has_a_host(nodes: Nodes) -> None:
    """So that none takes all of them along; and the supervisor is where Ray's head is."""
    assert len({host.node for host in await nodes.hosts()}) == 3
    supervisor: Any = ray.get_actor("supervisor", namespace=NAMESPACE)
    assert psutil.Process(await supervisor.pid.remote()).parent() not in nodes.raylets.values()


async def test_streams_survive_the_death_of_a_node(nodes: Nodes) -> None:
    """SIGKILL for its raylet: its workers end with it."""
    await disturb(nodes, signal.SIGKILL)


async def test_streams_survive_a_node_that_is_cut_off(nodes: Nodes) -> None:
    """Its raylet stands still: its host runs on as a zombie, which is fenced, and ends."""
    await disturb(nodes, signal.SIGSTOP)
