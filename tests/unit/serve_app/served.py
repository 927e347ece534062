"""The real application over a real cluster in one process: no Ray, no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import orjson

from actors.config import ClusterConfig
from runtime.catalog import Catalog
from runtime.model import Model
from serve_app.asgi import Api
from serve_app.limits import Limits
from tests.conformance import check_answer
from tests.local_cluster import CONFIG, LocalCluster
from tests.patience import PATIENCE_S

SECRET = CONFIG.secret_key
LOOPBACK = ("127.0.0.1", 50_000)
SILENCE = 0.1
"""Seconds until a stream looks around, so that tests of what it sees then need not wait for longer."""


class Served:
    """An application, the cluster behind it, and a client in front of it."""

    def __init__(self, cluster: LocalCluster, api: Api, client: httpx.AsyncClient) -> None:
        self.cluster, self.api, self.client = cluster, api, client

    async def create(self, **body: Any) -> httpx.Response:
        """POST a request; the model is `simulated` unless named."""
        return await self.client.post("/v1/responses", json={"model": "simulated", **body})

    async def ended(self, response_id: str) -> dict[str, Any]:
        """The response once it is over."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                body = (await self.client.get(f"/v1/responses/{response_id}")).json()
                if body["status"] not in ("queued", "in_progress"):
                    return dict(body)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def served(
    catalog: Catalog | None = None,
    models: Mapping[str, Model] | None = None,
    limits: Limits = Limits(),  # noqa: B008  # frozen
    admin_key: str | None = None,
    config: ClusterConfig = CONFIG,
) -> AsyncIterator[Served]:
    """Start, and end everything."""
    async with LocalCluster(config, models=models) as cluster:
        api = Api(
            cluster.client,
            catalog or Catalog(),
            secret=SECRET,
            admin_key=admin_key,
            limits=replace(limits, silence=SILENCE),
        )
        transport = httpx.ASGITransport(app=api, client=LOOPBACK)
        hooks = {"response": [_conforms]}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost", event_hooks=hooks
        ) as client:
            yield Served(cluster, api, client)
        await _hang_up(api)
        await api.aclose()


async def _hang_up(api: Api) -> None:
    """End what is answered still, as Serve does before it ends a replica."""
    answering = list(api.open._tasks.values())
    for task in answering:
        task.cancel()
    await asyncio.gather(*answering, return_exceptions=True)


async def _conforms(answer: httpx.Response) -> None:
    """Whatever a test is answered is held against both schemas of the Responses API."""
    if answer.status_code == 200 and answer.headers.get("content-type") == "application/json":
        check_answer(answer.request.url.path, await answer.aread())


class Connection:
    """One request as an ASGI server would carry it: piece by piece, and the client may leave."""

    def __init__(
        self,
        api: Api,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        query: str = "",
        client: tuple[str, int] | None = LOOPBACK,
    ) -> None:
        sent = {"host": "localhost", **(headers or {})}
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()],
            "client": client,
        }
        self._api = api
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})
        self.started: dict[str, Any] | None = None
        self.chunks: list[bytes] = []
        self.complete = False
        self._news = asyncio.Condition()
        self.task = asyncio.create_task(self._api(self.scope, self.incoming.get, self._send))

    def leave(self) -> None:
        """The client closes the connection."""
        self.incoming.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        """The answer's status."""
        assert self.started is not None, "nothing was answered"
        return int(self.started["status"])

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers."""
        assert self.started is not None, "nothing was answered"
        return {name.decode(): value.decode() for name, value in self.started["headers"]}

    @property
    def body(self) -> bytes:
        """All that was written so far."""
        return b"".join(self.chunks)

    async def until(self, text: bytes) -> None:
        """Wait until that was written."""
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: text in self.body)

    async def done(self) -> Connection:
        """Wait for the end of the request."""
        await asyncio.wait_for(self.task, PATIENCE_S)
        return self

    async def _send(self, message: Any) -> None:
        async with self._news:
            if message["type"] == "http.response.start":
                assert self.started is None, "answered twice"
                self.started = message
            else:
                self.chunks.append(message["body"])
                self.complete = not message.get("more_body", False)
            self._news.notify_all()


async def at_once(seconds: float) -> None:
    """A sleep for responses whose pauses are not what is tested."""
    await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait, with a bound, for what tells nobody that it happened."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # There is no event to wait for: the parts are the real ones.
            await asyncio.sleep(0.01)


def events_of(text: bytes) -> list[dict[str, Any]]:
    """The events of an SSE body, checked for its framing: `event`, `data`, blank line, LF only."""
    assert b"\r" not in text
    assert text.endswith(b"\n\n")
    frames = [frame for frame in text.split(b"\n\n")[:-1] if not frame.startswith(b":")]
    assert frames[-1] == b"data: [DONE]"
    events = []
    for frame in frames[:-1]:
        first, second = frame.split(b"\n")
        assert first.startswith(b"event: ")
        assert second.startswith(b"data: ")
        event = orjson.loads(second[6:])
        assert event["type"] == first[7:].decode()
        events.append(event)
    return events
