"""A short run of the chaos driver: what it finds in hours it would also find here, only seldom."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.driver import Chaos
from tests.chaos.faults import FAULTS

pytestmark = [pytest.mark.ray, pytest.mark.e2e]


@pytest.mark.timeout(280)
async def test_clients_hear_every_word_once_whatever_breaks(tmp_path: Path) -> None:
    """Numbers without a gap, one end, the upstream's very words, and a log whose chains verify."""
    chaos = Chaos(tmp_path, seed=11, clients=10)
    names = [name for name, fault in FAULTS.items() if not fault.ends and not fault.of_database]
    try:
        report = await chaos.run(30, names)
    finally:
        chaos.close()
    assert report.wrong == []
    assert len(report.faults) >= 2
    assert report.counts["whole"] >= 5
