"""Requests made from `/openapi.json`, sent to a server in this process.

    python -m tests.schema_requests --requests 10000

sends so many over all routes and says what went wrong: an answer that is not described, or none at all.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from runtime.catalog import Catalog
from serve_app.asgi import Api
from serve_app.auth import PROJECT_HEADER
from serve_app.openapi import describe
from serve_app.router import Endpoint
from tests.local_cluster import LocalCluster
from tests.unit.serve_app.keyed import ADMIN, AS_ADMIN
from tests.unit.serve_app.served import Served, served

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
"""Not among them: that whatever fits the description is taken.  It is as lenient as the server, which also
looks at what no schema can say."""
ANSWER_MAX_S: Final = 20.0


def table() -> list[Endpoint]:
    """Every endpoint that is described."""
    api = Api(LocalCluster().client, Catalog(), secret="s")
    return [endpoint for endpoint in api.router.endpoints if endpoint.path not in ("/openapi.json", "/docs")]


def described() -> Any:
    """The schema, for requests that fit it and for such that do not."""
    schema = schemathesis.openapi.from_dict(describe(table()))
    schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    return schema


class Front:
    """A server, what exists there, and one loop in which it answers."""

    def __init__(self, server: Served, known: dict[str, str], runner: asyncio.Runner) -> None:
        self.server, self.known, self._runner = server, known, runner
        self.sent = 0

    @classmethod
    @asynccontextmanager
    async def serving(cls, runner: asyncio.Runner) -> AsyncIterator[Front]:
        """Start it, with one thing of each kind."""
        async with served(admin_key=ADMIN) as server:
            server.client.headers.update(AS_ADMIN)
            response = (await server.create(input="Hello")).json()
            begun = {"items": [{"role": "user", "content": "Hello"}]}
            conversation = (await server.client.post("/v1/conversations", json=begun)).json()
            items = await server.client.get(f"/v1/conversations/{conversation['id']}/items")
            known = {
                "response_id": response["id"],
                "conversation_id": conversation["id"],
                "item_id": items.json()["first_id"],
                "project_id": "default",
                "id": "simulated",
            }
            yield cls(server, known, runner)

    def send(self, case: Any) -> httpx.Response:
        """The answer.  Every other request is about what exists, and does not delete it.

        All are an operator's, most of them for the default project: an open server would be closed by the
        first key that one of them makes.  Raises `TimeoutError`.
        """
        self.sent += 1
        if self.sent % 4 and case.headers:
            case.headers.pop(PROJECT_HEADER, None)
        if self.sent % 2 and case.method != "DELETE":
            names = [name for name in re.findall(r"\{(\w+)\}", case.path) if name in self.known]
            case.path_parameters |= {name: self.known[name] for name in names}
        made = requests.Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
        return self._runner.run(self._exchange(made))

    async def _exchange(self, made: requests.PreparedRequest) -> httpx.Response:
        client = self.server.client
        body: Any = made.body
        headers = {
            name: value if isinstance(value, str) else value.decode("latin-1")
            for name, value in made.headers.items()
        }
        asked = client.build_request(str(made.method), str(made.url), headers=headers, content=body)
        async with asyncio.timeout(ANSWER_MAX_S):
            return await client.send(asked)


def main() -> int:
    """Send as many as are wanted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    operations = [result.ok() for result in described().get_all_operations()]
    each = wanted.requests // len(operations) + 1
    answers: Counter[int] = Counter()
    wrong: list[str] = []
    began = time.monotonic()
    with asyncio.Runner() as runner:
        serving = Front.serving(runner)
        front = runner.run(serving.__aenter__())
        for operation in operations:
            _ask(operation, front, each, wanted.seed, answers, wrong)
        runner.run(serving.__aexit__(None, None, None))
    took = time.monotonic() - began
    print(f"{front.sent} requests in {took:.0f} s: {dict(sorted(answers.items()))}, {len(wrong)} wrong")
    print("\n\n".join(wrong))
    return 1 if wrong else 0


def _ask(
    operation: Any, front: Front, count: int, number: int, answers: Counter[int], wrong: list[str]
) -> None:
    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        try:
            answer = front.send(case)
            answers[answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is told, and the others are asked)
            wrong.append(f"{operation.label}: {type(error).__name__}: {error}"[:2000])

    ask()


if __name__ == "__main__":
    sys.exit(main())
