"""What only the in-memory bus offers: distortion for tests, and one ear for all channels."""

from __future__ import annotations

from collections.abc import Iterable

from eventstore.events import Batch
from eventstore.memory import MemoryLiveBus


def batch(channel: str, first: int) -> Batch:
    return Batch(channel, first, 1, (b"x",), version=first, position=first + 1)


async def test_a_tap_hears_all_channels() -> None:
    bus = MemoryLiveBus()
    async with bus.tap() as heard, bus.subscribe("b") as only:
        bus.publish(batch("a", 0))
        bus.publish(batch("b", 0))
        assert [await heard.next(0) for _ in range(3)] == [batch("a", 0), batch("b", 0), None]
        assert [await only.next(0) for _ in range(2)] == [batch("b", 0), None]


async def test_a_test_may_lose_repeat_and_reorder() -> None:
    """Here the first message is held back until the second, the second comes twice, the third never."""
    held: list[Batch] = []

    def distort(item: Batch) -> Iterable[Batch]:
        if item.first == 0:
            held.append(item)
        return (item, item, *held) if item.first == 1 else ()

    bus = MemoryLiveBus(distort)
    async with bus.subscribe("a") as live:
        for number in range(3):
            bus.publish(batch("a", number))
        heard = [await live.next(0) for _ in range(4)]
    assert [item and item.first for item in heard] == [1, 1, 0, None]
