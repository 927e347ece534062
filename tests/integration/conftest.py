"""Which event loops the tests of this folder run on, and what databases they share a server for."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop

from tests.postgres_server import server

ON_BOTH = ("test_nats_bus.py", "test_nats_client.py")
"""What depends on how a loop's transports behave; Ray's workers and uvicorn run uvloop."""


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops of one test, by name."""
    if item.path.name in ON_BOTH:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of a log in Postgres that is new and empty."""
    name = f"log_{secrets.token_hex(8)}"
    yield server().make(name)
    server().drop(name)


@pytest.fixture
def empty_postgres() -> Iterator[str]:
    """The URL of a database with nothing in it."""
    name = f"empty_{secrets.token_hex(8)}"
    yield server().make_empty(name)
    server().drop(name)
