"""What holds while a response changes hands: outcomes are known, time runs on, and it ends once."""

from __future__ import annotations

import asyncio

import pytest

from actors.journal import ActivationLost, Journal
from eventstore.errors import Fenced
from runtime.model import ItemOpened, TextDelta
from runtime.response.commands import Cancel
from runtime.response.state import Status
from tests.unit.actors.kit import (
    ID,
    FlakyStore,
    LateTake,
    ScriptedModel,
    World,
    always,
    check_shown,
    create,
    says,
    settle,
)
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_refusal_at_the_last_try_is_looked_into() -> None:
    """The commit of which nobody heard was made: whoever waits hears that, and not that nobody knows."""
    world = World(ScriptedModel(always(*says("one"))))
    flaky = FlakyStore(world.store, ["later"])
    journal = Journal(flaky, world.bus, asyncio.sleep, ID, owner="host-1")
    await journal.record(create(), patience=(0.1, 0.1))
    assert journal.version == 0
    flaky = FlakyStore(world.store, ["away", "away", "lost"])
    zombie = Journal(flaky, world.bus, asyncio.sleep, ID, state=journal.state, version=0, owner="host-1")
    await world.store.take(ID, epoch=1, owner="host-2")
    with pytest.raises(ActivationLost):
        await zombie.record(Cancel(0, "key_1"), patience=(0.1, 0.1, 0.1, 0.1))


def stalled() -> World:
    """A model that says a word and then nothing more."""
    return World(ScriptedModel(always([ItemOpened("message"), TextDelta("Well")], asyncio.Event())))


@in_virtual_time
async def test_a_time_limit_counts_from_the_first_activation_on() -> None:
    """Hosts that die under it win a response no time."""
    world = stalled()
    actor = world.actor("host-1")
    await actor.create(create(seconds=30), start=True)
    life = asyncio.create_task(actor.run())
    await asyncio.sleep(20)
    life.cancel()
    await asyncio.wait({life})
    second = world.actor("host-2")
    await second.resume(await world.head())
    await second.run()
    assert asyncio.get_running_loop().time() == 30
    assert check_shown(await world.shown())["error"]["code"] == "time_limit_exceeded"


@pytest.mark.parametrize("first", ["cancel", "takeover"])
@pytest.mark.parametrize("erases", [False, True])
@in_virtual_time
async def test_a_command_that_races_a_takeover_ends_it_once(first: str, erases: bool) -> None:
    """Its host is dead; another one resumes it while a third carries the command out."""
    world = stalled()
    dead = world.actor("host-1")
    await dead.create(create(), start=True)
    life = asyncio.create_task(dead.run())
    await settle()
    life.cancel()
    await asyncio.wait({life})
    head = await world.head()
    taker = world.actor("host-2")

    async def ends() -> None:
        commander = world.actor("host-3")
        await (commander.delete("key_1") if erases else commander.cancel("key_1"))

    async def resumes() -> None:
        await taker.resume(head)
        await taker.run()

    if first == "cancel":
        # Between its look at the head and its taking of the stream everything else happens.
        taker = world.actor("host-2", LateTake(world.store, ends))
        with pytest.raises(Fenced):
            await resumes()
    else:
        running = asyncio.create_task(resumes())
        await settle()
        await ends()
        with pytest.raises(ActivationLost):
            # What the upstream says next can no longer be recorded, so nothing of it was shown.
            await taker._journal.record(Cancel(0, "late"))  # type: ignore[union-attr]  # It was resumed.
        running.cancel()
        await asyncio.wait({running})
    state = Status((await world.head()).state)
    assert state == (Status.ERASED if erases else Status.CANCELLED)
    if not erases:
        assert check_shown(await world.shown())["status"] == "cancelled"
    assert (await world.head()).owner is None
    assert world.model.open_calls == 0
