"""A cancel races the answer's end ten thousand times, on this host or another, with whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from runtime.model import CallEnded, ItemClosed, ItemOpened, ModelRequest, TextDelta, Usage
from tests.simulator.loop import SimulatedLoop, run
from tests.unit.actors.kit import FlakyStore, ScriptedModel, Step, World, check_shown, create, settle

RACES = 10_000
AT_A_TIME = 500
STEPS = 60
"""Turns of the event loop after which a cancel can come; an answer takes about half of them."""
FAULTS: tuple[list[str], ...] = ([], [], [], ["", "late"], ["", "", "lost"])


def script(request: ModelRequest, number: int) -> Iterator[Step]:
    yield [ItemOpened("message"), TextDelta(" w0")]
    yield [TextDelta(" w1")]
    yield [ItemClosed(), CallEnded("stop", Usage(1, 2))]


async def race(chance: Random) -> str:
    """One race; who won."""
    world = World(ScriptedModel(script))
    store: Any = FlakyStore(world.store, list(chance.choice(FAULTS)))
    actor = world.actor(store=store)
    follower = asyncio.create_task(world.follow())
    await actor.create(create(), start=True)
    running = asyncio.create_task(actor.run())
    for _ in range(chance.randrange(STEPS)):
        await asyncio.sleep(0)
    await (world.actor("host-2") if chance.random() < 0.5 else actor).cancel("key_1")
    await asyncio.wait({running})
    shown = await follower
    final = check_shown(shown)
    await settle()
    assert shown == await world.shown(), "what was streamed is what everybody reads later"
    assert (await world.head()).state == final["status"]
    assert world.model.open_calls == 0
    return str(final["status"])


async def races(chance: Random) -> Counter[str]:
    return Counter([await race(chance) for _ in range(AT_A_TIME)])


@pytest.mark.parametrize("first", range(0, RACES, AT_A_TIME))
def test_of_a_cancel_and_an_end_one_wins(first: int) -> None:
    chance = Random(first)
    won = run(races(chance), SimulatedLoop(chance))
    assert set(won) == {"cancelled", "completed"}
    assert min(won.values()) > AT_A_TIME / 20, won
