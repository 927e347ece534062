"""Budgets: slices of what a project may use in a minute, and of the streams it may have open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import quotas
from actors.quotas import HOLD_S, MINUTE, Ask, Ledger
from actors.relay import response_relay, tokens_of
from eventstore.events import Batch
from eventstore.ports import BusUnavailable
from eventstore.relay import Message
from tests.patience import PATIENCE_S
from tests.unit.actors.kit import ScriptedModel, World, always, create, live_through, says

ASK = Ask("p", "r1", None, None, None, requests=0, unused=0, streams_open=0, streams=0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger(clock)


def wanting(requests: int, limit: int = 60, **more: Any) -> Ask:
    return replace(ASK, requests=requests, requests_per_minute=limit, **more)


def test_a_minutes_budget_is_there_at_once_and_flows_in_evenly(ledger: Ledger, clock: Clock) -> None:
    assert ledger.lend(wanting(50)).requests == 50
    assert ledger.lend(wanting(50)).requests == 10
    refused = ledger.lend(wanting(1))
    assert (refused.requests, refused.again_in, refused.requests_full_in) == (0, 1.0, MINUTE)
    clock.now += 1.5
    assert ledger.lend(wanting(5)).requests == 1
    clock.now += 10 * MINUTE
    assert ledger.lend(wanting(100)).requests == 60


def test_what_is_given_back_is_there_for_others(ledger: Ledger) -> None:
    assert ledger.lend(wanting(60)).requests == 60
    assert ledger.lend(wanting(0, unused=7)).requests_left == 7
    assert ledger.lend(wanting(60, replica="r2")).requests == 7


def test_a_bound_of_nothing_admits_nobody(ledger: Ledger) -> None:
    lease = ledger.lend(wanting(1, limit=0))
    assert (lease.requests, lease.again_in) == (0, MINUTE)


def test_a_bound_that_changes_holds_from_then_on(ledger: Ledger) -> None:
    assert ledger.lend(wanting(60)).requests == 60
    assert ledger.lend(wanting(60, limit=100)).requests == 40
    assert ledger.lend(wanting(5, limit=2)).requests == 0
    assert ledger.lend(replace(ASK, requests=5)).requests == 5, "without a bound, all that is wanted"


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 40), st.booleans()), max_size=60), st.integers(1, 100)
)
def test_nobody_admits_more_than_the_budget(steps: list[tuple[float, int, bool]], limit: int) -> None:
    clock = Clock()
    ledger = Ledger(clock)
    used = 0
    for pause, wanted, gives_back in steps:
        clock.now += pause
        lease = ledger.lend(wanting(wanted, limit))
        used += lease.requests
        if gives_back and lease.requests:
            ledger.lend(wanting(0, limit, unused=lease.requests))
            used -= lease.requests
        assert used <= limit + clock.now * limit / MINUTE + 1e-6


def test_who_is_behind_with_tokens_waits(ledger: Ledger, clock: Clock) -> None:
    ask = replace(ASK, tokens_per_minute=600, requests=3)
    assert not ledger.counts_tokens("p")
    assert ledger.lend(ask).requests == 3
    assert ledger.counts_tokens("p")
    ledger.spend("p", 620)
    waits = ledger.lend(ask)
    assert (waits.requests, waits.tokens_left, round(waits.again_in, 3)) == (0, 0, 2.1)
    clock.now += 2.2
    assert ledger.lend(ask).requests == 3
    ledger.spend("p", 10**9)
    assert ledger.lend(ask).again_in < 11 * MINUTE, "nobody is behind for ever"


def test_tokens_are_read_off_the_last_batch_only() -> None:
    data = orjson.dumps({"response": {"usage": {"total_tokens": 42}}})
    frames = (b"event: x\ndata: {}\n\n", b"event: response.completed\ndata: " + data + b"\n\n")
    last = Batch("resp_1", 0, 2, frames, 1, 1, "p", last=True)
    assert tokens_of(last) == 42
    assert tokens_of(replace(last, last=False)) == 0
    assert tokens_of(replace(last, frames=())) == 0


async def test_tokens_are_counted_once_however_often_the_bus_has_to_be_asked() -> None:
    class Public:
        payload_max = 1 << 20
        tries = 0

        async def publish(self, messages: Sequence[Message], *, capture: bool = True) -> None:
            self.tries += 1
            if self.tries < 3:
                raise BusUnavailable("the test says so")

    world, public = World(ScriptedModel(always(*says("Hi.")))), Public()
    heard: list[Batch] = []
    relay = response_relay(world.store, world.bus, public, heard.append)
    relaying = asyncio.create_task(relay.run())
    await live_through(world, create(), [None])
    async with asyncio.timeout(PATIENCE_S):
        while relay.lag or not (heard and heard[-1].last):  # noqa: ASYNC110  # It tells nobody how far it is.
            await asyncio.sleep(0.01)
    relaying.cancel()
    await asyncio.wait([relaying])
    assert public.tries > 2
    positions = [batch.position for batch in heard]
    assert positions == sorted(set(positions))
    assert [tokens_of(batch) > 0 for batch in heard if batch.last] == [True]


def test_streams_are_shared_by_replicas_and_outlive_none(ledger: Ledger, clock: Clock) -> None:
    def hold(replica: str, is_open: int, wanted: int) -> int:
        ask = replace(ASK, replica=replica, open_streams=10, streams_open=is_open, streams=wanted)
        return ledger.lend(ask).streams

    assert hold("r1", 0, 6) == 6
    assert hold("r2", 0, 6) == 4
    assert hold("r1", 2, 2) == 2, "who holds less leaves more to others"
    assert hold("r2", 4, 9) == 8
    clock.now += HOLD_S
    assert hold("r2", 8, 10) == 10, "a replica that says nothing any more is dead"
    assert hold("r1", 2, 3) == 2, "what is open stays open"


def test_memory_is_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "KNOWN_MAX", 3)
    for number in range(10):
        ledger.lend(replace(wanting(1), project=f"p{number}"))
    assert len(ledger._accounts) == 3
