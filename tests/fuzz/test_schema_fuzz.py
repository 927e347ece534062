"""Requests made from `/openapi.json`: every answer is one that it describes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.schema_requests import CHECKS, Front, described

schema = described()


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    """One server for all requests, in a loop of its own."""
    with asyncio.Runner() as runner:
        serving = Front.serving(runner)
        yield runner.run(serving.__aenter__())
        runner.run(serving.__aexit__(None, None, None))


@schema.parametrize()  # type: ignore[untyped-decorator]  # Schemathesis types it as anything.
@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_is_described(case: Any, front: Front) -> None:
    case.validate_response(front.send(case), checks=CHECKS)
