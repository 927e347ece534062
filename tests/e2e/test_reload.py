"""SIGHUP: the file of models is read again while everything runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.upstream import own
from tests.e2e.wire import check_whole, created, opened, text_of
from tests.fakes.script import words
from tests.launching import Instance, until
from tests.patience import PATIENCE_S

PACED = 80
NEWCOMER = '  newcomer: {upstream: patient, model: "fake?deltas=4"}'


@pytest.fixture
def models(instance: Instance) -> Iterator[Path]:
    """The server's file of models; it says again what it said, and is read again, after the test."""
    path = instance.data_dir.parent / "models.yaml"
    text = path.read_text()
    yield path
    _reload(instance, path, text, "the models were read again")


def _reload(instance: Instance, path: Path, text: str, says: str) -> None:
    """Have it read this, and wait for what it says of it."""
    path.write_text(text)
    before = instance.output.count(says)
    instance.process.send_signal(signal.SIGHUP)
    until(lambda: instance.output.count(says) > before, says)


async def _listed(instance: Instance, model: str) -> bool:
    """Whether every replica knows it: each connection may lead to another one."""
    for _ in range(8):
        async with httpx.AsyncClient(base_url=instance.url, timeout=PATIENCE_S) as client:
            if model not in {one["id"] for one in (await client.get("/v1/models")).json()["data"]}:
                return False
    return True


async def test_new_models_are_there_and_open_streams_go_on(
    instance: Instance, http: httpx.AsyncClient, models: Path
) -> None:
    """No replica is replaced for it, so no connection is cut; what runs keeps the model it began with."""
    text = (await asyncio.to_thread(models.read_text)).replace("\nagents:", f"\n{NEWCOMER}\nagents:")
    body = {"model": own(f"deltas={PACED}&interval_ms=100"), "input": "x", "stream": True}
    async with opened(http, "POST", "/v1/responses", json=body) as payloads:
        heard = [await anext(payloads)]
        await asyncio.to_thread(_reload, instance, models, text, "the models were read again")
        async with asyncio.timeout(PATIENCE_S):
            while not await _listed(instance, "newcomer"):  # noqa: ASYNC110  # No event tells of it.
                await asyncio.sleep(0.2)
        assert text_of(await created(http, {"model": "newcomer", "input": "x"})) == "".join(words(4))
        heard += [payload async for payload in payloads]
    assert check_whole(heard)["status"] == "completed"
    assert text_of(heard) == "".join(words(PACED))


async def test_a_file_that_cannot_be_used_changes_nothing(
    instance: Instance, http: httpx.AsyncClient, models: Path
) -> None:
    text = "models: {broken: {upstream: nowhere}}\n"
    await asyncio.to_thread(_reload, instance, models, text, "the models stay as they were")
    assert await _listed(instance, "firehose")
    assert text_of(await created(http, {"model": own("deltas=3"), "input": "x"})) == "".join(words(3))
