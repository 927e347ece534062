"""Every adapter of `EventStore` against a model of dictionaries, whatever the order of what is asked."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from eventstore.errors import EventStoreError, Fenced, LeaseLost, StreamNotFound
from eventstore.events import Recorded, Unit
from eventstore.verify import verify
from tests.contract.store_contract import STORES, Clock, StoreAdapter, records, whole_log
from tests.depth import examples
from tests.property.store_model import HOLDERS, KINDS, Model, Plan, holders, kinds, plans, slips, streams

T = TypeVar("T")


class StoreMachine(RuleBasedStateMachine):
    """One store and the model of it, asked the same."""

    adapter: ClassVar[StoreAdapter]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="store-machine-"))
        self.clock = Clock()
        self.model = Model(self.clock)
        self.store = self.run(self.adapter.open(self.folder, self.clock))

    def teardown(self) -> None:
        try:
            self.run(self._everything_is_as_the_model_says())
            self.run(self.store.aclose())
        finally:
            self.runner.close()
            shutil.rmtree(self.folder)

    def run(self, work: Awaitable[T]) -> T:
        async def main() -> T:
            return await work

        return self.runner.run(main())

    @rule(wanted=st.lists(plans, min_size=1, max_size=3, unique_by=lambda plan: plan.stream))
    def append(self, wanted: list[Plan]) -> None:
        """One unit over one to three streams."""
        claimed = [plan.claim[0] for plan in wanted if plan.claim]
        if len(set(claimed)) < len(claimed):
            wanted = [replace(plan, claim=None) for plan in wanted]
        unit = self.model.unit(wanted)
        self._answered([unit], [self.run(self._try(unit))])

    @rule(wanted=st.lists(plans, min_size=2, max_size=4, unique_by=lambda plan: plan.stream))
    def append_at_once(self, wanted: list[Plan]) -> None:
        """A unit for each stream, all at the same time: none may suffer from another."""
        units = [self.model.unit([replace(plan, claim=None)]) for plan in wanted]

        async def together() -> list[list[Recorded] | EventStoreError]:
            return await asyncio.gather(*(self._try(unit) for unit in units))

        self._answered(units, self.run(together()))

    async def _try(self, unit: Unit) -> list[Recorded] | EventStoreError:
        try:
            return list(await self.store.append(unit))
        except EventStoreError as error:
            return error

    def _answered(self, units: list[Unit], outcomes: list[list[Recorded] | EventStoreError]) -> None:
        won: list[tuple[int, Unit, list[Recorded]]] = []
        for unit, outcome in zip(units, outcomes, strict=True):
            refusals = self.model.refusals(unit)
            if isinstance(outcome, EventStoreError):
                assert type(outcome) in refusals, (unit, outcome, refusals)
            else:
                assert not refusals, (unit, refusals)
                won.append((outcome[0].position, unit, outcome))
        for _, unit, outcome in sorted(won, key=lambda item: item[0]):
            self.model.record(unit, outcome)

    @rule(stream=streams, slip=slips, owner=st.none() | holders, state=st.none() | st.just("taken"))
    def take(self, stream: str, slip: int, owner: str | None, state: str | None) -> None:
        found = self.model.streams.get(stream)
        epoch = (found.epoch if found else 1) + slip
        try:
            head = self.run(self.store.take(stream, epoch=epoch, owner=owner, state=state))
        except StreamNotFound:
            assert found is None
        except Fenced:
            assert found is not None
            assert found.epoch != epoch
        else:
            assert found is not None
            assert found.epoch == epoch
            found.epoch, found.owner, found.state = epoch + 1, owner, state or found.state
            assert (head.epoch, head.owner, head.state) == (found.epoch, found.owner, found.state)

    @rule(holder=holders, ttl=st.integers(1, 5))
    def renew(self, holder: str, ttl: int) -> None:
        try:
            self.run(self.store.renew(holder, ttl))
        except LeaseLost:
            assert holder in self.model.buried
        else:
            assert holder not in self.model.buried
            self.model.leases[holder] = self.clock.seconds + ttl

    @rule(holder=st.sampled_from(HOLDERS[:1]))
    def bury(self, holder: str) -> None:
        self.run(self.store.bury(holder))
        self.model.buried.add(holder)

    @rule(seconds=st.integers(1, 4))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            # A writer that hears nobody for longer lets no term pass.
            self.run(self.store.expired())

    @rule()
    def who_expired(self) -> None:
        owners = {stream.owner for stream in self.model.streams.values() if stream.owner}
        late = {holder for holder, until in self.model.leases.items() if until <= self.clock.seconds}
        assert list(self.run(self.store.expired())) == sorted(owners & (late | self.model.buried))

    @rule(name=st.sampled_from("xy"), position=st.integers(0, 9))
    def save_cursor(self, name: str, position: int) -> None:
        self.run(self.store.save_cursor(name, position))
        self.model.cursors[name] = max(position, self.model.cursors.get(name, 0))

    @rule(stream=streams, after=st.integers(-1, 12))
    def read(self, stream: str, after: int) -> None:
        found = self.model.streams.get(stream)
        events = found.events if found else []
        read = self.run(records(self.store, stream, after))
        assert [record.first_version for record in read] == [
            first for name, first, count in self.model.log if name == stream and first + count - 1 > after
        ]
        for record in read:
            expected = events[record.first_version : record.last_version + 1]
            assert [*record.types] == [name for name, _ in expected]
            assert [*(record.payload or [None] * record.count)] == [item for _, item in expected]

    @rule(stream=streams, kind=kinds)
    def lineage(self, stream: str, kind: str) -> None:
        expected: list[tuple[str, bytes | None]] = []
        name: str | None = stream
        while name in self.model.streams and name not in [seen for seen, _ in expected]:
            expected.insert(0, (name, self.model.streams[name].documents.get(kind)))
            name = self.model.streams[name].parent
        if name in [seen for seen, _ in expected]:
            return  # It is its own ancestor: no writer of ours makes such a stream, and no order is promised.
        found = self.run(self.store.lineage(stream, kind))
        assert [(head.stream, document) for head, document in found] == expected

    @rule(names=st.lists(streams, max_size=4), kind=kinds)
    def documents(self, names: list[str], kind: str) -> None:
        known = {name: self.model.streams[name] for name in names if name in self.model.streams}
        assert self.run(self.store.documents("p", names, kind)) == {
            name: found.documents[kind] for name, found in known.items() if kind in found.documents
        }

    @precondition(lambda self: self.adapter.survives)
    @rule()
    def reopen(self) -> None:
        """A new process: leases begin a new term, all else is as it was."""
        self.run(self.store.aclose())
        self.store = self.run(self.adapter.open(self.folder, self.clock))
        for holder in HOLDERS:
            if holder in self.model.leases and holder not in self.model.buried:
                self.renew(holder, 3)

    async def _everything_is_as_the_model_says(self) -> None:
        model, store = self.model, self.store
        log = await whole_log(store, page=3)
        assert [(item.stream, item.first_version, item.count) for item in log] == model.log
        assert [item.position for item in log] == list(range(1, len(log) + 1))
        heads = await store.heads()
        assert [head.stream for head in heads] == sorted(
            model.streams, key=lambda name: model.streams[name].created
        )
        for head in heads:
            is_ = model.streams[head.stream]
            assert (head.version, head.epoch, head.owner) == (is_.version, is_.epoch, is_.owner)
            assert (head.state, head.parent, head.created) == (is_.state, is_.parent, is_.created)
            for kind in KINDS:
                assert await store.document(head.stream, kind) == is_.documents.get(kind)
        for key in "kl":
            assert await store.claim("s", key) == model.claim("s", key)
        for name in "xy":
            assert await store.cursor(name) == model.cursors.get(name, 0)
        assert [item async for item in verify(store) if getattr(item, "finding", item) is not None] == []


@pytest.mark.parametrize("name", STORES)
def test_a_store_is_what_its_model_is(name: str) -> None:
    """Units right and stale, at once and one by one, takes, erasures, leases, reopenings, in any order."""
    machine = type(f"{name}StoreMachine", (StoreMachine,), {"adapter": STORES[name]})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(30 if name == "memory" else 8),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],  # A new database for each example.
        ),
    )
