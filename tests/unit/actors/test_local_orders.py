"""Orders within a node: they arrive whole, overtake each other, and a host that dies is noticed at once."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import struct
from collections.abc import AsyncIterator, Sequence
from multiprocessing.connection import Connection

import pytest

from actors.hosts import HostUnreachable
from actors.local_orders import OUTSTANDING_MAX, LocalLine, LocalLines, LocalOrders
from actors.orders import Answer, CancelOrder, Order, Overloaded, PlacementError
from tests.patience import PATIENCE_S

DONE = Answer([None], 1)


class Unspeakable(Exception):
    """What cannot be pickled."""

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a mistake")


class Host:
    """Obeys all but what it is told to refuse or to keep."""

    def __init__(self) -> None:
        self.heard: list[Order] = []
        self.release = asyncio.Event()

    async def obey(self, orders: Sequence[Order]) -> Answer:
        self.heard += orders
        return Answer([await self._outcome(order) for order in orders], 1)

    async def _outcome(self, order: Order) -> Exception | None:
        assert isinstance(order, CancelOrder)
        match order.by:
            case "slow":
                await self.release.wait()
            case "refused":
                return Overloaded(2.5)
            case "broken":
                raise TypeError("a mistake")
            case "cancelled":
                raise asyncio.CancelledError
            case "unspeakable":
                return Unspeakable()
        return None


@pytest.fixture
async def host() -> Host:
    return Host()


@pytest.fixture
async def orders(host: Host) -> AsyncIterator[LocalOrders]:
    orders = LocalOrders(host.obey)
    await orders.open()
    yield orders
    orders.close()


@pytest.fixture
async def lines() -> AsyncIterator[LocalLines]:
    lines = LocalLines()
    yield lines
    lines.close()


@pytest.fixture
async def line(lines: LocalLines, orders: LocalOrders) -> LocalLine:
    line = await lines.to(orders.address)
    assert line is not None
    return line


async def test_orders_and_refusals_arrive_whole(host: Host, line: LocalLine) -> None:
    long = CancelOrder("resp_1", "x" * 3_000_000)
    done, refused = (await line.obey([long, CancelOrder("resp_2", "refused")])).outcomes
    assert host.heard[0] == long
    assert done is None
    assert isinstance(refused, Overloaded)
    assert refused.retry_after == 2.5


async def test_a_slow_order_holds_up_no_other(host: Host, line: LocalLine) -> None:
    slow = [asyncio.create_task(line.obey([CancelOrder(str(n), "slow")])) for n in range(OUTSTANDING_MAX - 1)]
    async with asyncio.timeout(PATIENCE_S):
        assert await line.obey([CancelOrder("quick", "me")]) == DONE
        # One more than the host carries out at a time: it is read as soon as another one is done.
        slow += [asyncio.create_task(line.obey([CancelOrder(str(n), "slow")])) for n in range(2)]
        host.release.set()
        assert await asyncio.gather(*slow) == [DONE] * len(slow)


async def test_a_mistake_is_told_to_whoever_asked(line: LocalLine) -> None:
    for by in ("broken", "unspeakable"):
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(PlacementError, match="its host met TypeError"):
                await line.obey([CancelOrder("resp_1", by)])
    assert await line.obey([CancelOrder("resp_1", "me")]) == DONE


async def test_what_ends_without_an_answer_ends_the_line(lines: LocalLines, line: LocalLine) -> None:
    assert await line.obey([CancelOrder("resp_1", "me")]) == DONE
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(HostUnreachable):
            await line.obey([CancelOrder("resp_1", "cancelled")])
    again = await lines.to(line.address)
    assert again is not None
    assert again is not line


async def test_one_line_serves_all_who_speak_to_a_host(orders: LocalOrders, lines: LocalLines) -> None:
    first, second = await asyncio.gather(lines.to(orders.address), lines.to(orders.address))
    assert first is not None
    assert first is second


async def test_nobody_listens(lines: LocalLines) -> None:
    assert await lines.to("rayspond-host-of-yesterday") is None


async def test_another_user_is_refused(host: Host, lines: LocalLines) -> None:
    orders = LocalOrders(host.obey, os.getuid() + 1)
    await orders.open()
    line = await lines.to(orders.address)
    if line is not None:  # It hangs up a moment after it was reached.
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(HostUnreachable):
                await line.obey([CancelOrder("resp_1", "me")])
    assert host.heard == []
    assert await lines.to(orders.address) is None, "Ray carries its orders from now on"
    orders.close()


class Trap:
    """Tells when it is unpickled."""

    sprung = False

    def __reduce__(self) -> tuple[object, ...]:
        return (_spring, ())


def _spring() -> None:
    Trap.sprung = True


@pytest.mark.parametrize("token", ["", "00" * 31, "00" * 32])
async def test_who_does_not_know_the_token_is_not_read(orders: LocalOrders, token: str) -> None:
    """Its name can be listed by anybody."""
    name = orders.address.partition(":")[0]
    message = pickle.dumps((1, Trap()))
    reader, writer = await asyncio.open_unix_connection(f"\0{name}")
    writer.write(bytes.fromhex(token) + struct.pack("!Q", len(message)) + message)
    writer.write_eof()
    async with asyncio.timeout(PATIENCE_S):
        assert await reader.read() == b""
    writer.close()
    assert not Trap.sprung


async def test_who_cannot_be_told_is_refused(
    orders: LocalOrders, lines: LocalLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.local_orders.socket.SO_PEERCRED", -1)
    line = await lines.to(orders.address)
    assert line is not None
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(HostUnreachable):
            await line.obey([CancelOrder("resp_1", "me")])


def _deaf(address: Connection) -> None:
    """A host that takes orders and never answers."""

    async def run() -> None:
        silent = asyncio.Event()

        async def obey(orders: Sequence[Order]) -> Answer:
            address.send("taken")
            await silent.wait()
            return DONE

        orders = LocalOrders(obey)
        await orders.open()
        address.send(orders.address)
        await silent.wait()

    asyncio.run(run())


async def test_the_death_of_a_host_is_heard_at_once(lines: LocalLines) -> None:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_deaf, args=(theirs,))
    process.start()
    try:
        address = await asyncio.to_thread(ours.recv)
        line = await lines.to(address)
        assert line is not None
        waiting = asyncio.create_task(line.obey([CancelOrder("resp_1", "me")]))
        assert await asyncio.to_thread(ours.recv) == "taken"
        process.kill()
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(HostUnreachable):
                await waiting
        await asyncio.to_thread(process.join)
        assert await lines.to(address) is None
    finally:
        process.kill()
        process.join()
