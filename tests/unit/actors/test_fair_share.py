"""Where every slot is taken, each project has its share of those that get free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from actors.backlog import fair_page
from actors.host import ActorHost
from actors.orders import CreateOrder, Overloaded, ResumeOrder
from eventstore.errors import Fenced
from eventstore.events import Head, NewStream
from eventstore.memory import MemoryEventStore
from eventstore.ports import LogReader
from runtime.response.commands import Create
from runtime.response.standing import WAITING
from tests.contract.store_contract import create as begin
from tests.contract.store_contract import unit
from tests.local_cluster import CONFIG, LocalCluster
from tests.unit.actors.test_lost_work import some_host
from tests.unit.actors.test_supervisor import create, read, until

STALLED = "simulated?stall_after=1"


@pytest.fixture
async def cluster() -> AsyncIterator[LocalCluster]:
    """One host with two slots."""
    async with LocalCluster(replace(CONFIG, hosts=1, slots=2, queue_limit=8)) as running:
        yield running


def of(project: str, model: str = "simulated", *, background: bool = True) -> Create:
    return replace(create(model, background=background), project=project)


async def run(cluster: LocalCluster, *commands: Create) -> None:
    for command in commands:
        await cluster.client.create(command)


async def projects_running(cluster: LocalCluster) -> list[str]:
    return sorted([one.project for one in some_host(cluster).running()])


async def test_the_next_free_slot_is_for_whoever_runs_least(cluster: LocalCluster) -> None:
    flood = [of("flood", STALLED) for _ in range(40)]
    await run(cluster, *flood)
    quiet = of("quiet", STALLED)
    await run(cluster, quiet)
    running = [one.response_id for one in some_host(cluster).running()]
    await cluster.client.cancel(running[0], "test")
    await until(lambda: any(one.project == "quiet" for one in some_host(cluster).running()))
    await cluster.client.cancel(running[1], "test")
    await until(lambda: len(some_host(cluster).running()) == 2)
    assert await projects_running(cluster) == ["flood", "quiet"]


async def test_new_work_does_not_push_in(cluster: LocalCluster) -> None:
    """Whoever floods is there in the very moment in which a slot gets free."""
    await run(cluster, *(of("flood", STALLED) for _ in range(2)))
    await run(cluster, of("quiet", STALLED))
    host = some_host(cluster)
    assert host._behind
    host._slots = 3
    command = of("flood", STALLED)
    assert (await host.obey([CreateOrder(command)])).outcomes == [None]
    await until(lambda: len(host.running()) == 3)
    assert await projects_running(cluster) == ["flood", "flood", "quiet"]


async def test_a_client_whose_project_runs_nothing_is_a_guest() -> None:
    """It takes no slot, waits for none, and there is one guest for eight slots."""
    async with LocalCluster(replace(CONFIG, hosts=1, slots=8, queue_limit=8)) as cluster:
        host = some_host(cluster)
        await run(cluster, *(of("flood", STALLED) for _ in range(20)))
        await run(cluster, of("shy", STALLED))
        assert await projects_running(cluster) == ["flood"] * 8, "what waits without a client waits its turn"
        await run(cluster, *(of("quiet", STALLED, background=False) for _ in range(2)))
        await run(cluster, of("other", STALLED, background=False))
        assert await projects_running(cluster) == [*["flood"] * 8, "quiet"]
        guest = next(one for one in host.running() if one.project == "quiet")
        host._actors[guest.response_id].is_over = lambda: True  # type: ignore[method-assign]  # It just ended.
        await run(cluster, of("quiet", STALLED, background=False))
        assert await projects_running(cluster) == [*["flood"] * 8, "quiet", "quiet"]
        for one in host.running()[8:]:
            await cluster.client.cancel(one.response_id, "test")
        await until(lambda: len(host.running()) == 8)
        slot = host.running()[0]
        await cluster.client.cancel(slot.response_id, "test")
        await until(lambda: slot not in host.running() and len(host.running()) == 8)
        assert len(await projects_running(cluster)) == 8


async def test_guests_who_ask_again_at_once_do_not_keep_the_queue_from_running() -> None:
    """As many projects as there are slots, each of which asks anew before its slot is seen to be free."""
    async with LocalCluster(replace(CONFIG, hosts=1, slots=8, queue_limit=64)) as cluster:
        host = some_host(cluster)
        await run(cluster, *(of(f"p{number}", STALLED, background=False) for number in range(9)))
        assert (host.info().running, host.info().guests) == (9, 1)
        patient = of("patient", STALLED)
        await run(cluster, patient)
        for one in host.running()[:8]:
            host._actors[one.response_id].is_over = lambda: True  # type: ignore[method-assign]  # It just ended.
            await run(cluster, of(one.project, STALLED, background=False))
            await cluster.client.cancel(one.response_id, "test")
        await until(lambda: any(one.response_id == patient.id for one in host.running()))
        await until(lambda: len(host.running()) == 9)
        assert host.info().guests == 1


async def test_a_full_queue_has_room_for_whoever_has_less_than_its_share(cluster: LocalCluster) -> None:
    await run(cluster, *(of("flood", STALLED, background=False) for _ in range(10)))
    with pytest.raises(Overloaded):
        await run(cluster, of("flood", STALLED, background=False))
    await run(cluster, *(of("quiet", STALLED, background=False) for _ in range(4)))
    with pytest.raises(Overloaded):
        await run(cluster, of("quiet", STALLED, background=False))


class _Rows(MemoryEventStore):
    """Counts what was read."""

    rows = 0

    async def tally(self, **question: Any) -> Mapping[str, int]:
        found = await super().tally(**question)
        self.rows += sum(found.values())
        return found

    async def heads(self, **question: Any) -> Sequence[Head]:
        found = await super().heads(**question)
        self.rows += len(found)
        return found


async def test_what_waits_in_the_background_is_not_counted_for_a_client(cluster: LocalCluster) -> None:
    """However much there is, a client that waits costs no more: there is a bound for those with clients."""
    store = _Rows()
    host = ActorHost(
        replace(some_host(cluster)._ports, store=store), isolation="shared", slots=0, queue_limit=3
    )
    for number in range(300):
        background = NewStream("response", "flood", "queued", attributes={"background": "true"})
        await store.append(unit(begin(f"b{number}", new=background)))
    for number in range(3):
        await store.append(unit(begin(f"c{number}", new=NewStream("response", "flood", WAITING))))
    with pytest.raises(Overloaded):
        await host._check_queue("flood")
    assert store.rows == 3
    await host._check_queue("quiet")
    assert store.rows == 6


async def test_a_response_stands_in_the_queue_as_its_client_does(cluster: LocalCluster) -> None:
    await run(cluster, *(of("flood", STALLED) for _ in range(2)))
    commands = [of("flood", STALLED), of("flood", STALLED, background=False)]
    await run(cluster, *commands)
    found = [await cluster.store.head(command.id) for command in commands]
    assert [head and head.state for head in found] == ["queued", WAITING]


async def test_all_that_waits_runs_in_the_end(cluster: LocalCluster) -> None:
    commands = [of(f"p{number % 3}") for number in range(30)]
    await asyncio.gather(*(cluster.client.create(command) for command in commands))
    for command in commands:
        assert (await read(cluster, command.id))[-1]["type"] == "response.completed"


async def test_what_another_host_was_faster_to_take_leaves_room_for_the_next(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(cluster, *(of("flood", STALLED) for _ in range(3)))
    host = some_host(cluster)

    async def lost(order: ResumeOrder) -> Exception | None:
        return Fenced(order.response_id, order.epoch, order.epoch + 1)

    monkeypatch.setattr(host, "_outcome", lost)
    host._slots = 3
    await host._pull_once()
    assert host._pull_wanted


async def test_a_page_holds_something_of_every_project_however_much_one_has_queued() -> None:
    store = MemoryEventStore()
    for number in range(50):
        new = NewStream("response", "flood", "queued")
        await store.append(unit(begin(f"f{number}", new=new)))
    for name, state in (("a", "queued"), ("b", "queued"), ("c", "in_progress")):
        await store.append(unit(begin(name, new=NewStream("response", "quiet", state))))
    page = [head.stream for head in await fair_page(store, 10)]
    assert page[:4] == ["f0", "f1", "a", "f2"]
    assert set(page) == {"f0", "f1", "f2", "f3", "f4", "a", "b"}
    assert await fair_page(MemoryEventStore(), 10) == []


async def test_slots_that_get_free_together_are_filled_by_few_looks_at_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a flood of short work would keep the log busy with the order of its own queue."""
    ended, looks = asyncio.Event(), 0

    async def slow(reader: LogReader, limit: int) -> list[Head]:
        nonlocal looks
        looks += 1
        await ended.wait()
        return await fair_page(reader, limit)

    async with LocalCluster(replace(CONFIG, hosts=1, slots=8, lease_ttl=3600)) as cluster:
        await run(cluster, *(of("flood", STALLED) for _ in range(24)))
        host = some_host(cluster)
        first = [one.response_id for one in host.running()]
        await until(lambda: not host._pulling)  # A look that began before would fill the slots.
        monkeypatch.setattr("actors.host.fair_page", slow)
        await asyncio.gather(*(cluster.client.cancel(id, "test") for id in first))
        await until(lambda: not host.running())
        ended.set()
        await until(lambda: len(host.running()) == 8)
        assert looks <= 2, "each of them would look"
