"""Work beside the loops ends with its owner."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from actors.background import Background
from tests.patience import PATIENCE_S


async def test_what_swallows_a_cancellation_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.background.AGAIN_SECONDS", 0.01)
    begun = asyncio.Event()

    async def stubborn() -> None:
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                begun.set()
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    background = Background()
    task = background.spawn(stubborn())
    await begun.wait()
    async with asyncio.timeout(PATIENCE_S):
        await background.aclose()
    assert task.cancelled()
    assert len(background) == 0
