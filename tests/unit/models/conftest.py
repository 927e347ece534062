"""A fake upstream on loopback, and a pool of models that reach it."""

from collections.abc import AsyncIterator

import pytest

from runtime.models.open import ModelPool
from tests.fakes.upstream import FakeUpstream


@pytest.fixture
async def fake() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as running:
        yield running


@pytest.fixture
async def pool() -> AsyncIterator[ModelPool]:
    opened = ModelPool({"FAKE_KEY": "sk-very-secret"})
    yield opened
    await opened.aclose()
