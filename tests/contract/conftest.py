"""The fixtures that run one contract suite over every adapter of a port."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from eventstore.ports import EventStore
from tests.contract.bus_contract import BUSES, LiveBuses
from tests.contract.store_contract import STORES, Clock, StoreAdapter, opened


@pytest.fixture
def clock() -> Clock:
    """The store's time."""
    return Clock()


FAST = ("memory", "sqlite")
"""A database, or a socket beside it, for each test takes long: the fast tests meet the other adapters in
tests/property/test_store_machine.py."""


@pytest.fixture(
    params=[
        pytest.param(adapter, id=name, marks=[] if name in FAST else [pytest.mark.thorough])
        for name, adapter in STORES.items()
    ]
)
def adapter(request: pytest.FixtureRequest) -> StoreAdapter:
    found: StoreAdapter = request.param
    return found


@pytest.fixture
async def store(adapter: StoreAdapter, tmp_path: Path, clock: Clock) -> AsyncGenerator[EventStore]:
    """A new, empty log."""
    async with opened(adapter, tmp_path, clock) as store:
        yield store


@pytest.fixture(params=BUSES.values(), ids=list(BUSES))
async def buses(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[LiveBuses]:
    """Two ends of one live bus."""
    async with request.param(tmp_path) as buses:
        yield buses
