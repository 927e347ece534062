"""What a process begins with is left out of every collection."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from actors.collector import NEW_OBJECTS, spare_what_stays


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_only_what_came_later_is_looked_through() -> None:
    stays: list[object] = []
    spare_what_stays()
    came: list[object] = []
    looked_through = {id(one) for one in gc.get_objects()}
    assert id(came) in looked_through
    assert id(stays) not in looked_through
    assert gc.get_threshold()[0] == NEW_OBJECTS
