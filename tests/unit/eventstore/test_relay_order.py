"""The relay, over a log and a bus in memory, in virtual time: whatever the bus does, nothing is skipped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from actors.background import end
from eventstore.events import Batch, Record
from eventstore.held import HELD_MAX
from eventstore.nats_subjects import safe_token
from eventstore.ports import BusUnavailable, CaptureUnavailable, Subscription
from eventstore.relay import Message, Relay
from eventstore.renders import Renders
from eventstore.subscription import BufferedSubscription
from tests.relayed import Shown
from tests.virtual_time import run

STREAMS = ("a", "b", "c")


class Tap:
    """A bus that the test speaks through."""

    def __init__(self) -> None:
        self.held = BufferedSubscription(batches_max=64)

    @asynccontextmanager
    async def tap(self) -> AsyncGenerator[Subscription]:
        yield self.held


class Public:
    """What subscribers got, and what the stream keeps: each id once."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.kept: dict[str, str] = {}
        self.up = True
        self.payload_max = 1 << 20
        self.captures = True
        self.largest = 0

    async def publish(self, messages: Sequence[Message], *, capture: bool = True) -> None:
        await asyncio.sleep(0.001)
        if not self.up:
            raise BusUnavailable("the test says so")
        self.largest = max(self.largest, len(messages))
        self.heard += [payload.decode() for _, payload, _ in messages]
        if not capture:
            return
        if not self.captures:
            raise CaptureUnavailable(0, "the test says so")
        for _, payload, headers in messages:
            self.kept.setdefault(headers["id"], payload.decode())


def compose(batch: Batch, incarnation: str, payload_max: int) -> Sequence[Message]:
    safe_token(batch.channel)
    return [
        (f"x.{batch.channel}", frame, {"id": f"{incarnation}:{batch.channel}:{number}"})
        for number, frame in enumerate(batch.frames or (), batch.first)
    ]


class Scene:
    def __init__(self) -> None:
        self.log, self.bus, self.public = Shown(), Tap(), Public()
        self.renders = Renders(self.log.open_replay, open_max=2)
        self.rendered = 0

    def relay(self) -> Relay:
        return Relay(self.log.store, self.bus, self.public, self.render, compose)

    async def render(self, record: Record) -> Batch | None:
        self.rendered += 1
        return await self.renders.batch(record)

    async def settled(self, relay: Relay, seconds: float = 60.0) -> None:
        """Wait until everything is published; the clock is virtual, so this costs nothing."""
        deadline = asyncio.get_running_loop().time() + seconds
        while len(self.public.kept) < len(self.log.expected()) or relay.capture_lag:
            assert asyncio.get_running_loop().time() < deadline, relay.problem
            await asyncio.sleep(0.01)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def play(main: Coroutine[Any, Any, None]) -> None:
    run(main)


@pytest.mark.parametrize("seed", range(12))
def test_a_hostile_bus_changes_nothing(seed: int) -> None:
    """Lost, doubled, reordered and frameless batches, overflows: each frame once, in the order of the log."""

    async def main() -> None:
        chance = random.Random(seed)
        scene = Scene()
        relay = scene.relay()
        task = asyncio.create_task(relay.run())
        late: list[Batch] = []
        for _ in range(300):
            batch = await scene.log.commit(chance.choice((*STREAMS, "quiet")), chance.randint(1, 3))
            fate = chance.randrange(8) if batch.channel != "quiet" else 0
            if fate == 1:
                late.append(batch)
            elif fate == 2:
                scene.bus.held.offer(replace(batch, frames=None))
            elif fate > 2:
                for _ in range(2 if fate == 3 else 1):
                    scene.bus.held.offer(batch)
            if late and chance.random() < 0.2:
                scene.bus.held.offer(late.pop(chance.randrange(len(late))))
            if chance.random() < 0.3:
                await asyncio.sleep(chance.choice((0, 0.005, 0.05, 1.5)))
        await scene.settled(relay)
        assert scene.public.heard == scene.log.expected()
        assert list(scene.public.kept.values()) == scene.log.expected()
        await asyncio.sleep(3)  # The last record may be one that shows nothing: only the log tells of it.
        assert relay.healthy
        await stop(task)
        assert await scene.log.store.cursor("relay") == relay.position == 300

    play(main())


def test_what_comes_in_order_needs_no_log() -> None:
    """While the bus works, nothing is rendered, and an event is out at once."""

    async def main() -> None:
        scene = Scene()
        relay = scene.relay()
        task = asyncio.create_task(relay.run())
        await asyncio.sleep(0.1)
        for _ in range(50):
            scene.bus.held.offer(await scene.log.commit("a"))
            await asyncio.sleep(0.01)
        assert scene.public.heard == scene.log.expected()
        assert scene.log.opened == 0
        await stop(task)

    play(main())


def test_what_is_only_late_is_soon_waited_for_and_not_read_from_the_log() -> None:
    """Two hosts under load: of every two positions the first is heard 100 ms after the second."""

    async def main() -> None:
        scene = Scene()
        task = asyncio.create_task(scene.relay().run())
        await asyncio.sleep(0.1)
        opened = []
        for _ in range(20):
            late = await scene.log.commit("a")
            scene.bus.held.offer(await scene.log.commit("b"))
            await asyncio.sleep(0.1)
            scene.bus.held.offer(late)
            await asyncio.sleep(0.02)
            opened.append(scene.rendered)
        assert scene.public.heard == scene.log.expected()
        assert 0 < opened[-1] == opened[4], "read from the log at first, and then no more"
        await stop(task)

    play(main())


def test_a_hole_is_filled_from_the_log_within_50_ms_and_what_lies_behind_it_is_heard() -> None:
    async def main() -> None:
        scene = Scene()
        task = asyncio.create_task(scene.relay().run())
        await asyncio.sleep(0.1)
        await scene.log.commit("a")
        scene.bus.held.offer(await scene.log.commit("b"))
        behind = [await scene.log.commit("c") for _ in range(3)]
        await asyncio.sleep(0.05)
        assert scene.public.heard == ["a-0", "b-0"]
        for batch in behind:
            scene.bus.held.offer(batch)
        await asyncio.sleep(0.05)
        assert scene.public.heard == scene.log.expected()
        assert scene.rendered == 1
        await stop(task)

    play(main())


def test_while_it_is_behind_it_shows_nothing_anew_that_it_hears() -> None:
    async def main() -> None:
        scene = Scene()
        committed = [await scene.log.commit("a") for _ in range(600)]
        for batch in committed[-50:]:
            scene.bus.held.offer(batch)
        task = asyncio.create_task(scene.relay().run())
        await asyncio.sleep(3.0)
        assert scene.public.heard == scene.log.expected()
        assert scene.rendered == 550
        await stop(task)

    play(main())


def test_a_bus_that_never_stops_speaking_does_not_keep_it_from_the_log() -> None:
    class Endless(BufferedSubscription):
        """Says the same again and again, for longer than anybody should listen."""

        def __init__(self, word: Batch) -> None:
            super().__init__()
            self.word, self.said = word, 0

        async def next(self, timeout: float) -> Batch | None:
            self.said += 1
            assert self.said < 3 * HELD_MAX
            return self.word

    async def main() -> None:
        scene = Scene()
        scene.bus.held = Endless(await scene.log.commit("a"))
        await scene.log.commit("a")
        task = asyncio.create_task(scene.relay().run())
        await asyncio.sleep(3.0)
        assert scene.public.heard == scene.log.expected()
        await stop(task)

    play(main())


def test_what_it_heard_while_it_was_behind_may_be_erased_until_it_comes_there() -> None:
    async def main() -> None:
        scene = Scene()
        committed = [await scene.log.commit("a" if number < 590 else "b") for number in range(600)]
        for batch in committed[-10:]:
            scene.bus.held.offer(batch)
        await scene.log.erase("b")
        task = asyncio.create_task(scene.relay().run())
        await asyncio.sleep(3.0)
        assert scene.public.heard == [f"a-{number}" for number in range(590)]
        await stop(task)

    play(main())


def test_a_killed_relay_goes_on_from_its_cursor() -> None:
    """It repeats at most what followed the last save; ids show the repeats."""

    async def main() -> None:
        scene = Scene()
        for turn in range(5):
            relay = scene.relay()
            task = asyncio.create_task(relay.run())
            for _ in range(30):
                await scene.log.commit("a")
            await asyncio.sleep(0.002 if turn % 2 else 3)
            await stop(task)
        relay = scene.relay()
        task = asyncio.create_task(relay.run())
        await scene.settled(relay)
        assert list(scene.public.kept.values()) == scene.log.expected()
        await stop(task)

    play(main())


def test_while_the_bus_is_away_it_waits_and_says_so() -> None:
    async def main() -> None:
        scene = Scene()
        relay = scene.relay()
        task = asyncio.create_task(relay.run())
        scene.public.up = False
        for _ in range(600):
            scene.bus.held.offer(await scene.log.commit("a"))
        await asyncio.sleep(30)
        assert relay.problem == "the test says so"
        assert relay.lag > 0
        assert relay.position == 0
        scene.public.up = True
        await scene.settled(relay)
        assert scene.public.heard == scene.log.expected()
        assert scene.public.largest <= 512
        assert relay.healthy
        await stop(task)

    play(main())


def test_while_the_store_is_away_it_waits() -> None:
    async def main() -> None:
        scene = Scene()
        scene.log.store.available = False
        relay = scene.relay()
        task = asyncio.create_task(relay.run())
        await asyncio.sleep(10)
        assert not relay.healthy
        scene.log.store.available = True
        await scene.log.commit("a")
        await scene.settled(relay)
        await stop(task)

    play(main())


def test_a_stream_that_takes_nothing_does_not_stop_listeners() -> None:
    """Listeners hear at once; the cursor stays, and the stream gets all of it, in order, once it is back."""

    async def main() -> None:
        scene = Scene()
        relay = scene.relay()
        task = asyncio.create_task(relay.run())
        scene.bus.held.offer(await scene.log.commit("a"))
        await scene.settled(relay)
        scene.public.captures = False
        for _ in range(100):
            scene.bus.held.offer(await scene.log.commit("b"))
            await asyncio.sleep(0.1)
        assert list(dict.fromkeys(scene.public.heard)) == scene.log.expected()
        assert len(scene.public.kept) == 1
        assert relay.problem == "the stream does not take events: the test says so"
        assert relay.lag == 0
        assert relay.capture_lag == 100
        assert await scene.log.store.cursor("relay") == 1
        scene.public.captures = True
        await scene.settled(relay)
        assert list(scene.public.kept.values()) == scene.log.expected()
        assert relay.healthy
        await stop(task)

    play(main())


def test_what_cannot_be_shown_is_waited_for_and_named() -> None:
    """What comes before it is public; nothing behind it is, until somebody can show it."""

    async def main() -> None:
        scene = Scene()
        scene.log.unknown = "b"
        relay = scene.relay()
        task = asyncio.create_task(relay.run())
        for stream in ("a", "a", "b", "a"):
            await scene.log.commit(stream)
        await asyncio.sleep(20)
        assert scene.public.heard == ["a-0", "a-1"]
        assert relay.position == 2
        assert relay.problem is not None
        assert relay.problem.startswith("position 3 of the log cannot be shown (no such event)")
        assert 15 < relay.lag_seconds <= 20
        scene.log.unknown = None
        await scene.settled(relay)
        assert scene.public.heard == scene.log.expected()
        assert relay.healthy
        assert relay.lag_seconds == 0
        await stop(task)

    play(main())


def test_what_cannot_be_composed_is_waited_for_and_named() -> None:
    async def main() -> None:
        scene = Scene()
        broken = True

        def composed(batch: Batch, incarnation: str, payload_max: int) -> Sequence[Message]:
            if broken and batch.channel == "b":
                raise ValueError("no frame")
            return compose(batch, incarnation, payload_max)

        relay = Relay(scene.log.store, scene.bus, scene.public, scene.renders.batch, composed)
        task = asyncio.create_task(relay.run())
        for stream in ("a", "b", "a"):
            scene.bus.held.offer(await scene.log.commit(stream))
        await asyncio.sleep(5)
        assert scene.public.heard == ["a-0"]
        assert relay.problem is not None
        assert "position 2 of the log cannot be shown (no frame)" in relay.problem
        broken = False
        await scene.settled(relay)
        assert scene.public.heard == scene.log.expected()
        await stop(task)

    play(main())


def test_its_lag_is_told_in_seconds() -> None:
    """Of the oldest position that waits, not of the newest; a relay that keeps up has none."""

    async def main() -> None:
        scene = Scene()
        relay = scene.relay()
        task = asyncio.create_task(relay.run())
        scene.public.up = False
        for _ in range(100):
            scene.bus.held.offer(await scene.log.commit("a"))
            await asyncio.sleep(0.1)
        assert 9 < relay.lag_seconds < 11
        scene.public.up = True
        await scene.settled(relay)
        for _ in range(100):
            scene.bus.held.offer(await scene.log.commit("a"))
            await asyncio.sleep(0.005)
            assert relay.lag_seconds < 0.2
        await stop(task)

    play(main())


def test_what_is_erased_before_it_was_published_stays_unsaid() -> None:
    """Its positions are passed; what others said in between is published."""

    async def main() -> None:
        scene = Scene()
        scene.public.up = False
        relay = scene.relay()
        task = asyncio.create_task(relay.run())
        for stream in ("a", "b", "a", "b"):
            await scene.log.commit(stream)
        await asyncio.sleep(5)
        await scene.log.erase("a")
        scene.public.up = True
        await asyncio.sleep(10)
        assert scene.public.heard == ["b-0", "b-1", "{}"], "the erasure itself is an event"
        assert relay.position == 5
        assert relay.healthy
        await stop(task)

    play(main())


def test_a_name_that_fits_no_subject_is_left_out() -> None:
    """It cannot be published; it must not hold up the others."""

    async def main() -> None:
        scene = Scene()
        relay = scene.relay()
        task = asyncio.create_task(relay.run())
        await scene.log.commit("a")
        await scene.log.commit("b.*")
        await scene.log.commit("c")
        await asyncio.sleep(3)
        assert scene.public.heard == ["a-0", "c-0"]
        assert relay.position == 3
        await stop(task)

    play(main())


def test_a_record_may_be_rendered_again_and_in_any_order() -> None:
    """Also after its stream's fold was dropped for others, and without the bytes once it is erased."""

    async def main() -> None:
        scene = Scene()
        wanted = [await scene.log.commit(stream) for stream in ("a", "b", "a", "c", "a")]
        records = await scene.log.store.read_all(0)
        for index in (4, 4, 0, 3, 1, 2, 0):
            assert await scene.renders.batch(records[index]) == wanted[index]
        assert await scene.renders.batch(replace(records[0], payload=None)) is None

    play(main())


def test_the_cursor_is_saved_however_often_the_relay_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        scene = Scene()
        relay = scene.relay()
        task = asyncio.create_task(relay.run())
        await asyncio.sleep(2)
        scene.bus.held.offer(await scene.log.commit("a"))
        while not relay.position:  # noqa: ASYNC110  (it sets no event)
            await asyncio.sleep(0.001)
        save = scene.log.store.save_cursor

        async def slowly(name: str, position: int) -> None:
            await asyncio.sleep(3)
            await save(name, position)

        monkeypatch.setattr(scene.log.store, "save_cursor", slowly)
        await end(task)
        assert await scene.log.store.cursor("relay") == 1

    play(main())
