from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.serve_app.served import Served, served


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    """An application with the `simulated` model and nothing else."""
    async with served() as one:
        yield one
