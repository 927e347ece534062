"""Many who want to know where their streams stand are one question to the log."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import pytest

from eventstore.errors import StoreUnavailable
from eventstore.events import NO_STREAM
from eventstore.glances import Glances
from eventstore.memory import MemoryEventStore
from tests import virtual_time


class Counting(MemoryEventStore):
    """Stream "s3" stands at version 3; says how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[set[str]] = []
        self.away = False

    async def versions(self, streams: Collection[str]) -> Mapping[str, int]:
        self.asked.append(set(streams))
        if self.away:
            raise StoreUnavailable("the test says so")
        return {"s3": 3} if "s3" in streams else {}


def test_those_who_ask_at_about_the_same_time_share_a_question() -> None:
    async def main() -> None:
        store = Counting()
        glances = Glances(store)
        assert await asyncio.gather(*map(glances.version, ("s1", "s3", "s3"))) == [NO_STREAM, 3, 3]
        assert store.asked == [{"s1", "s3"}]
        assert await glances.version("s3") == 3
        assert store.asked == [{"s1", "s3"}, {"s3"}], "an answer is not used again"

    virtual_time.run(main())


def test_one_who_leaves_takes_the_answer_from_nobody() -> None:
    async def main() -> None:
        glances = Glances(Counting())
        first, second = (asyncio.create_task(glances.version(name)) for name in ("s1", "s3"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == 3

    virtual_time.run(main())


def test_all_who_ask_hear_that_the_log_is_away_and_the_next_ones_ask_again() -> None:
    async def main() -> None:
        store = Counting()
        store.away = True
        glances = Glances(store)
        heard = await asyncio.gather(*map(glances.version, ("s1", "s3")), return_exceptions=True)
        assert [type(one) for one in heard] == [StoreUnavailable, StoreUnavailable]
        store.away = False
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await glances.version("s3")
        assert await glances.version("s3") == 3

    virtual_time.run(main())
