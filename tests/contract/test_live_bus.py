"""The contract of `LiveBus` and `Subscription`, the same for every adapter."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from eventstore.events import Batch
from eventstore.follow import follow
from eventstore.ports import Subscription
from tests.contract.bus_contract import PATIENCE, LiveBuses
from tests.followed import LogReplay, ShownLog, numbers


def batch(first: int, *frames: bytes, channel: str = "s") -> Batch:
    return Batch(channel, first, len(frames), frames, version=first + 7, position=first + 9)


async def hear(live: Subscription, count: int) -> list[Batch]:
    heard = [await live.next(PATIENCE) for _ in range(count)]
    return [item for item in heard if item is not None]


async def test_what_is_published_is_heard_whole(buses: LiveBuses) -> None:
    """Every field and every byte, of a full batch and of an empty last one."""
    full = Batch("s", 3, 2, (b"a\x00\xff\n", b""), 11, 12, tenant="p-ü", last=False, transient=True)
    empty = Batch("s", 5, 0, (), 12, 13, tenant="p-ü", last=True)
    bare = Batch("s", 5, 7, None, 13, 14)
    async with buses.reader.subscribe("s") as live:
        for item in (full, empty, bare):
            buses.writer.publish(item)
        assert await hear(live, 3) == [full, empty, bare]


async def test_a_channel_is_heard_by_all_who_subscribed_and_by_nobody_else(buses: LiveBuses) -> None:
    async with (
        buses.reader.subscribe("s") as one,
        buses.reader.subscribe("s") as two,
        buses.reader.subscribe("t") as other,
    ):
        buses.writer.publish(batch(0, b"x"))
        buses.writer.publish(batch(0, b"y", channel="t"))
        assert await hear(one, 1) == await hear(two, 1) == [batch(0, b"x")]
        assert await hear(other, 1) == [batch(0, b"y", channel="t")]


async def test_what_was_published_before_is_not_heard(buses: LiveBuses) -> None:
    """A bus remembers nothing: the log does."""
    async with buses.reader.subscribe("s") as first:
        buses.writer.publish(batch(0, b"early"))
        assert await hear(first, 1) == [batch(0, b"early")]
    async with buses.reader.subscribe("s") as second:
        buses.writer.publish(batch(1, b"late"))
        assert await hear(second, 1) == [batch(1, b"late")]


async def test_silence_is_none_and_takes_its_time(buses: LiveBuses) -> None:
    async with buses.reader.subscribe("s") as live:
        before = asyncio.get_running_loop().time()
        assert await live.next(0.05) is None
        assert asyncio.get_running_loop().time() - before >= 0.045
        buses.writer.publish(batch(0, b"x"))
        assert await live.next(PATIENCE) == batch(0, b"x")


async def test_a_wait_that_is_given_up_loses_nothing(buses: LiveBuses) -> None:
    async with buses.reader.subscribe("s") as live:
        waiting = asyncio.ensure_future(live.next(PATIENCE))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        buses.writer.publish(batch(0, b"x"))
        assert await live.next(PATIENCE) == batch(0, b"x")


async def drain(live: Subscription) -> tuple[list[Batch], int]:
    """What is heard until the channel's last batch, and how often something was missing before it."""
    heard: list[Batch] = []
    gaps = 0
    while not (heard and heard[-1].last):
        item = await live.next(PATIENCE)
        if item is None:
            gaps += 1
        else:
            heard.append(item)
    return heard, gaps


async def settle(buses: LiveBuses) -> None:
    """Return once everything published before has arrived at the reader's side."""
    async with buses.reader.subscribe("settle") as live:
        buses.writer.publish(batch(0, b"", channel="settle"))
        assert await live.next(PATIENCE) is not None


async def test_a_slow_reader_loses_all_that_was_held_and_is_told(buses: LiveBuses) -> None:
    """More than 256 batches: those held are dropped, None says so, and what comes later is heard."""
    async with buses.reader.subscribe("s") as live:
        for number in range(257):
            buses.writer.publish(batch(number, b"x"))
        await settle(buses)
        last = replace(batch(257, b"y"), last=True)
        buses.writer.publish(last)
        assert await drain(live) == ([last], 1)


async def test_a_reader_holds_no_more_than_a_mebibyte(buses: LiveBuses) -> None:
    async with buses.reader.subscribe("s") as live:
        for number in range(5):
            buses.writer.publish(batch(number, bytes(250_000)))
        await settle(buses)
        last = replace(batch(5, b"y"), last=True)
        buses.writer.publish(last)
        assert await drain(live) == ([last], 1)


async def test_a_reader_that_keeps_up_hears_more_than_it_may_hold(buses: LiveBuses) -> None:
    async with buses.reader.subscribe("s") as live:
        for number in range(300):
            buses.writer.publish(batch(number, bytes(8000)))
            assert await live.next(PATIENCE) == batch(number, bytes(8000))


async def test_up_to_the_bounds_nothing_is_dropped(buses: LiveBuses) -> None:
    async with buses.reader.subscribe("s") as live:
        sent = [replace(batch(number, bytes(4000)), last=number == 255) for number in range(256)]
        for item in sent:
            buses.writer.publish(item)
        await settle(buses)
        assert await drain(live) == (sent, 0)


async def test_a_batch_too_large_for_the_bus_still_leads_its_followers_to_the_log(buses: LiveBuses) -> None:
    """It comes without its frames, or not at all but as a loss; a follower reads it in the log either way."""
    log = ShownLog()
    log.commit(1)
    huge = replace(log.commit(1), frames=(bytes(3 << 20),))
    log.commit(1, last=True)
    async with buses.reader.subscribe("s") as live:
        for item in (log.batches[0], huge, log.batches[2]):
            buses.writer.publish(item)
        replay = LogReplay(log)
        assert numbers([seen async for seen in follow(replay, live, fresh=True)]) == [0, 1, 2]
    assert replay.reads == 1


async def test_nothing_goes_wrong_when_nobody_listens(buses: LiveBuses) -> None:
    buses.writer.publish(batch(0, b"x"))
    async with buses.reader.subscribe("s"):
        pass
    buses.writer.publish(batch(1, b"x"))
    await settle(buses)
