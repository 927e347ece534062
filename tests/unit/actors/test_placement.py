"""Creates travel together under load, at once when idle; nothing else waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from actors.hosts import HostDied
from actors.orders import Answer, CancelOrder, CreateOrder, HostInfo, Order, Overloaded, Running
from actors.placement import AT_HOME, CALLS_MAX, FEW_PROCESSORS, ORDERS_MAX, WAITING_MAX, Placement
from eventstore.meter import Figures
from tests.patience import PATIENCE_S
from tests.unit.actors.test_supervisor import create

MANY = FEW_PROCESSORS + 1


class SlowHost:
    """A host that answers when it is told to."""

    def __init__(self) -> None:
        self.calls: list[list[Order]] = []
        self.answer = asyncio.Event()
        self.dead = False
        self.answers_nonsense = False
        self.runs = 0

    async def obey(self, orders: Sequence[Order]) -> Answer:
        self.calls.append(list(orders))
        await self.answer.wait()
        if self.dead:
            raise HostDied("it")
        if self.answers_nonsense:
            raise TypeError("no answer of ours")
        return Answer([None] * len(orders), self.runs)

    async def info(self) -> HostInfo:
        return info("it")

    async def running(self) -> list[Running]:
        return []

    async def figures(self) -> Figures:
        return ()

    def gone(self) -> bool:
        return self.dead

    def kill(self) -> None:
        self.dead = True


def info(name: str, running: int = 0) -> HostInfo:
    return HostInfo(name, "shared", 8, "node", 1, running=running)


def placed(host: SlowHost) -> Placement:
    placement = Placement(MANY)
    placement.update([(info("it"), host)])
    return placement


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_arrives_in_one_turn_travels_in_one_call() -> None:
    host = SlowHost()
    placement = placed(host)
    sending = [asyncio.create_task(placement.send("it", CreateOrder(create()))) for _ in range(10)]
    await turns()
    assert [len(call) for call in host.calls] == [10]
    host.answer.set()
    assert await asyncio.gather(*sending) == [None] * 10


async def test_what_arrives_while_calls_are_under_way_waits_for_the_next_one() -> None:
    host = SlowHost()
    placement = placed(host)
    sending = []
    for _ in range(CALLS_MAX + 3):
        sending.append(asyncio.create_task(placement.send("it", CreateOrder(create()))))
        await turns()
    assert [len(call) for call in host.calls] == [1] * CALLS_MAX
    host.answer.set()
    await asyncio.gather(*sending)
    assert [len(call) for call in host.calls] == [*[1] * CALLS_MAX, 3]


async def test_a_call_is_bounded() -> None:
    host = SlowHost()
    host.answer.set()
    placement = placed(host)
    await asyncio.gather(*(placement.send("it", CreateOrder(create())) for _ in range(ORDERS_MAX + 1)))
    assert [len(call) for call in host.calls] == [ORDERS_MAX, 1]


async def test_whoever_comes_when_too_many_wait_is_told_to_come_again() -> None:
    """And all who waited before are served."""
    host = SlowHost()
    placement = placed(host)
    sending = [asyncio.create_task(placement.send("it", CreateOrder(create()))) for _ in range(ORDERS_MAX)]
    await turns()
    sending += [asyncio.create_task(placement.send("it", CreateOrder(create()))) for _ in range(ORDERS_MAX)]
    await turns()
    waiting = [asyncio.create_task(placement.send("it", CreateOrder(create()))) for _ in range(WAITING_MAX)]
    await turns()
    late = [await placement.send("it", CreateOrder(create())) for _ in range(3)]
    assert all(isinstance(one, Overloaded) for one in late)
    host.answer.set()
    assert await asyncio.gather(*sending, *waiting) == [None] * (2 * ORDERS_MAX + WAITING_MAX)


async def test_a_cancel_waits_for_no_create() -> None:
    host = SlowHost()
    placement = placed(host)
    sending = []
    for _ in range(CALLS_MAX):
        sending.append(asyncio.create_task(placement.send("it", CreateOrder(create()))))
        await turns()
    sending.append(asyncio.create_task(placement.send("it", CancelOrder("resp_x", "tester"))))
    await turns()
    assert isinstance(host.calls[-1][0], CancelOrder)
    host.answer.set()
    await asyncio.gather(*sending)


async def test_who_waits_for_a_dead_host_hears_of_it() -> None:
    host = SlowHost()
    placement = placed(host)
    sending = [asyncio.create_task(placement.send("it", CreateOrder(create()))) for _ in range(3)]
    await turns()
    host.dead = True
    host.answer.set()
    assert all(isinstance(one, HostDied) for one in await asyncio.gather(*sending, return_exceptions=True))
    with pytest.raises(HostDied):
        await placement.send("it", CreateOrder(create()))


async def test_who_waits_hears_of_whatever_goes_wrong() -> None:
    """An answer that cannot even be unpickled must not leave a client waiting for ever."""
    host = SlowHost()
    placement = placed(host)
    sending = [asyncio.create_task(placement.send("it", CreateOrder(create()))) for _ in range(3)]
    await turns()
    host.answers_nonsense = True
    host.answer.set()
    async with asyncio.timeout(PATIENCE_S):
        heard = await asyncio.gather(*sending, return_exceptions=True)
    assert [type(one) for one in heard] == [TypeError] * 3


async def test_the_host_with_most_room_is_chosen() -> None:
    placement = Placement(MANY)
    placement.update([(info("full", 7), SlowHost()), (info("free", 1), SlowHost())])
    assert placement.least_loaded() == "free"
    assert placement.least_loaded("exclusive") is None


def wide(name: str, *, owns_log: bool = False) -> HostInfo:
    return replace(info(name), slots=256, owns_log=owns_log)


async def sent_to(placement: Placement, *infos: HostInfo) -> list[str]:
    """Where three times as many creates go as one host is preferred for."""
    hosts = {info.name: SlowHost() for info in infos}
    placement.update([(info, hosts[info.name]) for info in infos])
    sent = []
    for _ in range(3 * AT_HOME):
        name = placement.least_loaded()
        assert name is not None
        sent.append(name)
        hosts[name].runs += 1
        hosts[name].answer.set()
        await placement.send(name, CreateOrder(create()))
    return sent


async def test_an_idle_host_comes_first_then_the_one_that_owns_the_log_while_it_has_little_to_do() -> None:
    sent = await sent_to(Placement(MANY), wide("owner", owns_log=True), wide("other"))
    assert sent[: AT_HOME + 1] == ["owner", "other", *["owner"] * (AT_HOME - 1)]
    assert {*sent[AT_HOME + 1 : 2 * AT_HOME]} == {"other"}
    assert abs(sent.count("owner") - sent.count("other")) <= 1, "both have as many from then on"


async def test_on_few_processors_one_host_is_preferred_though_none_owns_the_log() -> None:
    sent = await sent_to(Placement(FEW_PROCESSORS), wide("two"), wide("one"))
    assert sent[: AT_HOME + 1] == ["one", "two", *["one"] * (AT_HOME - 1)]
    assert abs(sent.count("one") - sent.count("two")) <= 1, "both have as many from then on"


async def test_hosts_of_several_machines_or_of_many_processors_share_equally() -> None:
    elsewhere = replace(wide("two"), node="another")
    for placement, other in ((Placement(FEW_PROCESSORS), elsewhere), (Placement(MANY), wide("two"))):
        sent = await sent_to(placement, wide("one"), other)
        assert abs(sent[:AT_HOME].count("one") - sent[:AT_HOME].count("two")) <= 1


async def test_creates_on_their_way_count_and_those_that_ended_do_not() -> None:
    placement = Placement(MANY)
    hosts = {"one": SlowHost(), "two": SlowHost()}
    placement.update([(wide(name), host) for name, host in hosts.items()])
    sending = [asyncio.create_task(placement.send("one", CreateOrder(create()))) for _ in range(2)]
    sending.append(asyncio.create_task(placement.send("two", CreateOrder(create()))))
    await turns()
    assert placement.least_loaded() == "two"
    for host, runs in ((hosts["one"], 0), (hosts["two"], 1)):
        host.runs = runs
        host.answer.set()
    await asyncio.gather(*sending)
    assert placement.least_loaded() == "one"


async def test_a_full_host_is_the_last_to_be_chosen() -> None:
    placement = Placement(MANY)
    full = replace(info("owner", 8), owns_log=True)
    placement.update([(full, SlowHost()), (info("other", 7), SlowHost())])
    assert placement.least_loaded() == "other"
