"""Many followers of one growing stream, under everything a bus and a log can do to them (invariant 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventstore.events import Batch
from eventstore.follow import follow
from eventstore.subscription import BufferedSubscription
from tests.depth import examples
from tests.followed import LogReplay, ShownLog, numbers
from tests.patience import PATIENCE_S
from tests.virtual_time import VirtualTimeLoop

T = TypeVar("T")
FOLLOWERS_MAX = 4
FATES = ("heard", "heard", "lost", "doubled", "delayed", "stripped", "overflowed")


@dataclass(eq=False)
class Follower:
    """One reader: its own ears, its own view of the log, and what it has seen."""

    after: int
    log: ShownLog
    live: BufferedSubscription = field(default_factory=BufferedSubscription)
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared while the client does not read."""
    delayed: list[Batch] = field(default_factory=list)
    seen: list[Batch | None] = field(default_factory=list)
    ended: int = 0

    async def watch(self, fresh: bool, glances: bool) -> None:
        newest = self.log.newest if glances else None
        followed = follow(
            LogReplay(self.log), self.live, self.after, fresh=fresh, patience=1e9, newest=newest
        )
        async with aclosing(followed):
            async for batch in followed:
                self.seen.append(batch)
                await self.reading.wait()
        self.ended += 1

    def hear(self, batch: Batch, fate: str) -> None:
        if fate in ("heard", "doubled"):
            self.live.offer(batch)
        if fate == "doubled":
            self.live.offer(batch)
        if fate == "delayed":
            self.delayed.append(batch)
        if fate == "stripped":
            self.live.offer(replace(batch, frames=None))
        if fate == "overflowed":
            for _ in range(300):
                self.live.offer(batch)


class FollowMachine(RuleBasedStateMachine):
    """Commits, messages, silences and outages in any order; at the end everything heals."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self.log = ShownLog()
        self.followers: list[Follower] = []
        self.tasks: list[asyncio.Task[None]] = []

    def run(self, work: Awaitable[T]) -> T:
        async def main() -> T:
            return await work

        return self.runner.run(main())

    @property
    def is_finished(self) -> bool:
        return bool(self.log.batches) and self.log.batches[-1].last

    @precondition(lambda self: len(self.followers) < FOLLOWERS_MAX)
    @rule(after=st.integers(-1, 12), fresh=st.booleans(), glances=st.booleans())
    def begin_to_follow(self, after: int, fresh: bool, glances: bool) -> None:
        """A client comes, at the beginning, in the middle or from beyond the end."""
        follower = Follower(after, self.log)
        follower.reading.set()
        self.followers.append(follower)
        watching = follower.watch(fresh and not self.log.batches, glances)
        self.tasks.append(self.runner.get_loop().create_task(watching))

    @precondition(lambda self: not self.is_finished)
    @rule(
        count=st.integers(0, 3),
        last=st.sampled_from([False] * 5 + [True]),
        fates=st.lists(st.sampled_from(FATES), min_size=FOLLOWERS_MAX, max_size=FOLLOWERS_MAX),
    )
    def commit(self, count: int, last: bool, fates: list[str]) -> None:
        """The writer commits, and the message meets a fate of its own on the way to each follower."""
        batch = self.log.commit(count, last=last)
        for follower, fate in zip(self.followers, fates, strict=False):
            follower.hear(batch, fate)

    @precondition(lambda self: any(follower.delayed for follower in self.followers))
    @rule(data=st.data())
    def delayed_messages_arrive(self, data: st.DataObject) -> None:
        """In any order, long after they were sent."""
        for follower in self.followers:
            for batch in data.draw(st.permutations(follower.delayed)):
                follower.live.offer(batch)
            follower.delayed.clear()

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.1, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(available=st.booleans(), behind=st.sampled_from([None, None, 0, 1, 3]))
    def the_log_changes_its_mood(self, available: bool, behind: int | None) -> None:
        """It goes away, comes back, or shows less than was committed."""
        self.log.available = available
        self.log.visible = None if behind is None else max(0, len(self.log.batches) - behind)

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def a_client_stops_reading_or_goes_on(self, data: st.DataObject) -> None:
        follower = data.draw(st.sampled_from(self.followers))
        if follower.reading.is_set():
            follower.reading.clear()
        else:
            follower.reading.set()

    @invariant()
    def nobody_saw_a_gap_or_a_repeat(self) -> None:
        for follower in self.followers:
            seen = numbers(follower.seen)
            assert seen == list(range(follower.after + 1, follower.after + 1 + len(seen)))
            assert not seen or seen[-1] <= self.log.end

    def teardown(self) -> None:
        """The stream ends, everything works again, and within seconds each follower has seen all, once."""
        try:
            self.run(self._heal())
            for follower, task in zip(self.followers, self.tasks, strict=True):
                assert task.done(), "a follower hangs"
                task.result()
                assert follower.ended == 1
                assert numbers(follower.seen) == list(range(follower.after + 1, self.log.end + 1))
                assert [batch for batch in follower.seen if batch and batch.last] == follower.seen[-1:]
        finally:
            self.runner.close()

    async def _heal(self) -> None:
        if not self.is_finished:
            self.log.commit(1, last=True)
        self.log.available, self.log.visible = True, None
        for follower in self.followers:
            follower.reading.set()
        await asyncio.wait([*self.tasks, asyncio.ensure_future(asyncio.sleep(0))], timeout=PATIENCE_S)


TestFollow = FollowMachine.TestCase
TestFollow.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)
