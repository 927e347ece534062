"""One real `rayspond serve` for all end-to-end tests, on a data directory of its own and free ports.

Its settings come from the environment, such as `RAYSPOND_ISOLATION=dedicated`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.launching import Instance


@pytest.fixture(scope="session")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """A running instance of the real application; ended, and seen to end, after the last test."""
    running = Instance(tmp_path_factory.mktemp("e2e") / "data", app=None)
    try:
        yield running.wait_ready()
        running.stop()
    finally:
        running.kill()
