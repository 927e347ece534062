"""One real `rayspond serve` for all end-to-end tests, on a data directory of its own and free ports.

Its settings come from the environment, such as `RAYSPOND_ISOLATION=dedicated`; its models speak to a fake
upstream that says word by word what it was told to.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.conftest import SHARED_SERVER
from tests.e2e.spending import EFFECTS
from tests.e2e.upstream import KEY, TOKEN, Upstream
from tests.launching import Instance
from tests.patience import PATIENCE_S

SERVER_LIMIT_S = PATIENCE_S
"""How long one answer may take on a busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them need a Ray, and a server."""
    for item in items:
        if "tests/e2e/" in item.path.as_posix():
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """The fake upstream behind every server of these tests."""
    running = Upstream(tmp_path_factory.mktemp("upstream") / "upstream.log")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def environment(base_environment: dict[str, str]) -> dict[str, str]:
    """What every server of these tests is started with; a module may have its own."""
    return base_environment


@pytest.fixture(scope="session")
def base_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a server needs to speak to the fake upstream, and to find the tools that its agents have."""
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "E2E_UPSTREAM_KEY": KEY,
        "E2E_WRONG_KEY": "sk-wrong",
        "E2E_GATEWAY_TOKEN": TOKEN,
        EFFECTS: str(tmp_path_factory.mktemp("effects")),
        # A client of these tests may take its time: some of them stop reading for a while, on a busy machine.
        "RAYSPOND_CLIENT_STALL_S": "300",
        "PYTHONPATH": os.pathsep.join(paths),
    }


@pytest.fixture(scope="session")
def instance(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    upstream: Upstream,
    environment: dict[str, str],
) -> Iterator[Instance]:
    """A running instance of the real application; ended, and seen to end, after its last test."""
    directory = tmp_path_factory.mktemp("e2e")
    models = upstream.models(directory / "models.yaml")
    running = Instance(directory / "data", "--config", str(models), app=None, **environment)
    stash = request.config.stash
    try:
        stash[SHARED_SERVER] = running.wait_ready()
        yield running
        if SHARED_SERVER in stash:
            running.stop()
    finally:
        running.kill()


@pytest.fixture(scope="session")
def client(instance: Instance) -> Iterator[openai.OpenAI]:
    """OpenAI's own client.  It retries nothing, so that nothing is hidden."""
    with connect(instance) as one:
        yield one


@pytest.fixture
async def async_client(instance: Instance) -> AsyncIterator[openai.AsyncOpenAI]:
    """Its asynchronous twin."""
    async with openai.AsyncOpenAI(
        base_url=f"{instance.url}/v1", api_key="sk-any", max_retries=0, timeout=SERVER_LIMIT_S
    ) as one:
        yield one


@pytest.fixture
async def http(instance: Instance) -> AsyncIterator[httpx.AsyncClient]:
    """Plain HTTP, for what is compared byte by byte."""
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=instance.url, timeout=SERVER_LIMIT_S, limits=limits) as one:
        yield one


def connect(instance: Instance) -> openai.OpenAI:
    """OpenAI's client for one instance."""
    return openai.OpenAI(
        base_url=f"{instance.url}/v1", api_key="sk-any", max_retries=0, timeout=SERVER_LIMIT_S
    )
