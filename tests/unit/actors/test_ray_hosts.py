"""Which nodes get hosts."""

from __future__ import annotations

import pytest

from actors.ray_hosts import RayHostFactory
from tests.local_cluster import CONFIG


async def test_a_node_on_which_no_host_came_up_is_not_chosen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the factory of the next try to start either."""
    bad, dead, good = (digit * 56 for digit in "abc")
    nodes = [{"NodeID": node, "Alive": node != dead} for node in (bad, dead, good)]
    monkeypatch.setattr("actors.ray_hosts.ray.nodes", lambda: nodes)
    monkeypatch.setattr("actors.ray_hosts._TRIED", set())
    chosen = [await RayHostFactory(CONFIG)._apart() for _ in range(3)]
    assert [options and options["scheduling_strategy"].node_id for options in chosen] == [bad, good, {}]
