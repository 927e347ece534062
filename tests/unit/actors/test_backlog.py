"""What is found to be erased or sealed: nothing that stays as it is stands in front of the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.backlog import Backlog, Known
from eventstore.events import NO_STREAM, Append, Head, NewEvent, NewStream, Unit
from eventstore.memory import MemoryEventStore
from tests.local_cluster import CONFIG


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.backlog.PAGE", 2)
    monkeypatch.setattr("actors.backlog.PAGES_MAX", 2)


class Asked(MemoryEventStore):
    """Counts the looks at heads."""

    looks = 0

    async def heads(self, **query: Any) -> list[Head]:
        self.looks += 1
        return list(await super().heads(**query))


async def ended(responses: int) -> Asked:
    """A log of that many responses that are over."""
    store = Asked()
    for number in range(responses):
        new = NewStream("response", "p", "completed", attributes={"created_at": "0", "ended_at": "1"})
        await store.append(Unit([Append(f"r{number}", NO_STREAM, 1, [NewEvent("e", b"")], new=new)]))
    return store


async def test_what_cannot_be_sealed_does_not_stand_in_front_of_the_rest() -> None:
    backlog = Backlog(await ended(9), replace(CONFIG, seal_after=1.0), lambda: 100.0)
    for number in range(7):
        backlog.unsealable.add(f"r{number}")
    found = [[head.stream for head in await backlog.sealable()] for _ in range(4)]
    assert found == [[], ["r7"], ["r8"], []]


async def test_what_was_not_sealed_is_found_again_once_all_others_were() -> None:
    backlog = Backlog(await ended(3), replace(CONFIG, seal_after=1.0), lambda: 100.0)
    found = [[head.stream for head in await backlog.sealable()] for _ in range(3)]
    assert found == [["r0", "r1"], ["r2"], ["r0", "r1"]]


async def test_what_cannot_be_erased_does_not_stand_in_front_of_the_rest() -> None:
    backlog = Backlog(await ended(9), replace(CONFIG, retention=1.0), lambda: 100.0)
    rounds = [
        [order.response_id for orders in [page async for page in backlog.erasures()] for order in orders]
        for _ in range(4)
    ]
    assert rounds == [["r0", "r1", "r2", "r3"], ["r4", "r5", "r6", "r7"], ["r8"], ["r0", "r1", "r2", "r3"]]


async def test_what_is_kept_for_ever_is_not_even_looked_for() -> None:
    store = await ended(3)
    backlog = Backlog(store, replace(CONFIG, retention=0.0), lambda: 100.0)
    assert [page async for page in backlog.erasures()] == []
    assert store.looks == 1  # For those of `store: false`.


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.backlog.KNOWN_MAX", 2)
    known = Known()
    assert [known.add(stream) for stream in ("a", "b", "a", "c")] == [True, True, False, True]
    assert [stream in known for stream in ("a", "b", "c")] == [False, True, True]
