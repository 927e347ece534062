"""`follow` case by case, and by brute force over everything a bus can do to a small stream (invariant 4)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest

from eventstore.errors import LogCorrupted, StoreUnavailable
from eventstore.events import Batch
from eventstore.follow import follow
from eventstore.memory import MemoryLiveBus
from eventstore.subscription import BufferedSubscription
from tests import virtual_time
from tests.followed import LogReplay, ShownLog, batches, numbers


class Heard:
    """`Subscription` to a script; afterwards silence, in which the log catches up with what was committed."""

    def __init__(self, log: ShownLog, script: Sequence[Batch | None]) -> None:
        self.log, self.script = log, list(script)
        self.lost = False

    async def next(self, timeout: float) -> Batch | None:
        if self.script:
            return self.script.pop(0)
        self.log.visible = None
        return None


async def everything(
    log: ShownLog, heard: Sequence[Batch | None], after: int = -1, *, fresh: bool = False
) -> list[Batch | None]:
    followed = follow(LogReplay(log), Heard(log, heard), after, fresh=fresh)
    return [batch async for batch in followed]


def test_whatever_a_bus_does_to_a_small_stream_nobody_sees_a_gap_or_a_repeat() -> None:
    """Invariant 4, by brute force: every subset of the messages lost, in every order, each whole, without its
    frames, or twice, met by a reader that starts after any number and whose log shows any prefix at first."""
    stream = batches([1, 2, 0, 1])
    end = stream[-1].end
    spellings: tuple[Callable[[Batch], list[Batch | None]], ...] = (
        lambda batch: [batch],
        lambda batch: [batch, batch],
        lambda batch: [replace(batch, frames=None)],
        lambda batch: [None, batch],
    )

    async def every_case() -> None:
        for kept in itertools.chain.from_iterable(itertools.permutations(stream, n) for n in range(5)):
            for spell in spellings:
                heard = [message for batch in kept for message in spell(batch)]
                for after, visible in itertools.product(range(-1, end + 3), range(5)):
                    for fresh in (False, True) if visible == 0 else (False,):
                        seen = await everything(ShownLog(stream, visible), heard, after, fresh=fresh)
                        assert numbers(seen) == list(range(after + 1, end + 1)), (heard, after, visible)
                        last = [batch for batch in seen if batch is not None and batch.last]
                        assert last == [seen[-1]]

    asyncio.run(every_case())


async def test_a_finished_stream_ends_at_once_for_who_has_seen_it_all() -> None:
    """`after` beyond the end costs one look at the log, and shows that it is the end."""
    replay = LogReplay(ShownLog(batches([2, 1])))
    seen = [batch async for batch in follow(replay, BufferedSubscription(), after=7)]
    assert [(batch.count, batch.last) for batch in seen if batch] == [(0, True)]
    assert replay.reads == 1


async def test_a_stream_heard_in_order_is_never_looked_up() -> None:
    """A fresh stream on a faithful bus costs the log no read at all."""
    log, bus = ShownLog(), MemoryLiveBus()
    async with bus.subscribe("s") as live:
        for count, last in ((1, False), (3, False), (0, False), (1, True)):
            bus.publish(log.commit(count, last=last))
        replay = LogReplay(log)
        assert numbers([batch async for batch in follow(replay, live, fresh=True)]) == [0, 1, 2, 3, 4]
    assert replay.reads == 0


async def test_a_reader_that_was_too_slow_goes_back_to_the_log() -> None:
    """More than a subscription holds: what it dropped comes from the log."""
    log, bus = ShownLog(), MemoryLiveBus()
    async with bus.subscribe("s") as live:
        for index in range(300):
            bus.publish(log.commit(1, last=index == 299))
        replay = LogReplay(log)
        assert numbers([batch async for batch in follow(replay, live, fresh=True)]) == list(range(300))
    assert replay.reads == 1


def test_silence_is_told_so_that_connections_can_be_kept() -> None:
    """Each second without news gives one look at the log and one None."""

    async def main() -> None:
        log = ShownLog()
        log.commit(1)
        async with aclosing(follow(LogReplay(log), BufferedSubscription(), silence=1.0)) as followed:
            assert [await anext(followed) for _ in range(4)] == [log.batches[0], None, None, None]
            assert asyncio.get_running_loop().time() == pytest.approx(3.0)
            log.commit(1, last=True)
            assert await anext(followed) == log.batches[1]

    virtual_time.run(main())


def test_silence_is_not_looked_into_while_the_log_stands_where_the_follower_is() -> None:
    async def main() -> None:
        log = ShownLog()
        replay, live = LogReplay(log), BufferedSubscription()
        async with aclosing(follow(replay, live, fresh=True, silence=1.0, newest=log.newest)) as followed:
            live.offer(log.commit(2))
            assert await anext(followed) == log.batches[0]
            assert [await anext(followed) for _ in range(3)] == [None, None, None]
            assert replay.reads == 0
            log.commit(1)  # The bus loses it.
            assert [await anext(followed), await anext(followed)] == [None, log.batches[1]]
            assert [await anext(followed) for _ in range(3)] == [None, None, None]
            assert replay.reads == 1
            log.commit(0, last=True)  # And the last one, too, which shows nothing.
            assert (await anext(followed) or batches([1])[0]).last

    virtual_time.run(main())


def test_a_bus_that_is_late_is_waited_for_and_one_that_lost_something_is_not() -> None:
    """Each look at the log takes from a full machine what the bus lacks."""

    async def main() -> None:
        log, now = ShownLog(), asyncio.get_running_loop().time
        replay, live = LogReplay(log), BufferedSubscription()
        async with aclosing(follow(replay, live, fresh=True, silence=1.0, newest=log.newest)) as followed:
            live.offer(log.commit(1))
            await anext(followed)
            for _ in range(3):
                late = log.commit(1)
                assert await anext(followed) is None
                live.offer(late)
                assert await anext(followed) == late
            assert replay.reads == 0
            assert now() == pytest.approx(3.0)
            for seconds in (2.0, 1.0, 1.0):
                assert await anext(followed) is None
                lost, began = log.commit(1), now()
                while (heard := await anext(followed)) is None:
                    pass
                assert heard == lost
                assert now() - began == pytest.approx(seconds)
            assert replay.reads == 3
            live.offer(log.commit(1))
            await anext(followed)
            log.commit(1)
            live.drop()
            began = now()
            assert await anext(followed) == log.batches[-1], "it is known to be lost"
            assert now() == began

    virtual_time.run(main())


def test_an_erasure_that_was_heard_is_looked_into() -> None:
    """It shows nothing, so whoever follows hears of it from the log."""

    async def main() -> None:
        log = ShownLog()
        replay, live = LogReplay(log), BufferedSubscription()
        async with aclosing(follow(replay, live, fresh=True, silence=1.0, newest=log.newest)) as followed:
            live.offer(log.commit(2))
            await anext(followed)
            live.offer(log.commit(0))
            await anext(followed)
            assert replay.reads == 1

    virtual_time.run(main())


async def until_end(followed: AsyncGenerator[Batch | None, None]) -> None:
    async for batch in followed:
        assert batch is None


def test_a_log_that_cannot_be_asked_where_it_stands_is_waited_for() -> None:
    async def main() -> None:
        log = ShownLog(batches([1, 1]), available=False)
        live = BufferedSubscription()
        followed = follow(LogReplay(log), live, fresh=True, newest=log.newest)
        with pytest.raises(StoreUnavailable):
            await until_end(followed)
        assert 30.0 <= asyncio.get_running_loop().time() < 34.0

    virtual_time.run(main())


def test_a_log_that_is_away_for_a_while_is_waited_for() -> None:
    """It comes back within the patience: the follower has told silence meanwhile, and then goes on."""

    async def main() -> None:
        log = ShownLog(batches([1, 1]), available=False)
        asyncio.get_running_loop().call_later(29.0, setattr, log, "available", True)
        seen = [batch async for batch in follow(LogReplay(log), BufferedSubscription())]
        assert numbers(seen) == [0, 1]
        assert 15 < seen.count(None) < 60, "often enough for keep-alives, seldom enough for the log"

    virtual_time.run(main())


def test_a_log_that_stays_away_ends_the_follower_without_an_end() -> None:
    async def main() -> None:
        log = ShownLog(batches([1, 1]))
        seen: list[Batch | None] = []

        async def watch() -> None:
            async for batch in follow(LogReplay(log), BufferedSubscription(), patience=30.0):
                seen.append(batch)
                log.available = False

        with pytest.raises(StoreUnavailable):
            await watch()
        assert numbers(seen) == [0]
        assert 30.0 <= asyncio.get_running_loop().time() < 32.0

    virtual_time.run(main())


async def test_a_gap_in_the_log_itself_is_named_not_passed_over() -> None:
    log = ShownLog(batches([1, 2, 1]))
    del log.batches[1]
    with pytest.raises(LogCorrupted, match=r"version 2: frame 1 is missing; the log goes on with 3"):
        await everything(log, [])


async def test_a_message_that_counts_more_than_it_carries_is_not_believed() -> None:
    log = ShownLog(batches([2, 1]))
    lying = replace(log.batches[0], frames=(b"only one",))
    assert numbers(await everything(log, [lying], fresh=True)) == [0, 1, 2]
