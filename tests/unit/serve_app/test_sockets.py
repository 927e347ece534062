"""The application behind the server that Ray Serve uses, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn

from serve_app.limits import Limits
from tests.patience import PATIENCE_S
from tests.unit.serve_app.served import Served, served, until

STALLED = {"model": "simulated?stall_after=2", "input": "x", "stream": True}


@asynccontextmanager
async def listening(limits: Limits = Limits()) -> AsyncIterator[tuple[Served, httpx.AsyncClient]]:  # noqa: B008  # frozen
    """An application on a free port."""
    async with served(limits=limits) as server:
        config = uvicorn.Config(server.api, port=0, ws="none", lifespan="off", log_config=None)
        web = uvicorn.Server(config)
        serving = asyncio.create_task(web.serve())
        await until(lambda: web.started)
        port = web.servers[0].sockets[0].getsockname()[1]
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
                yield server, client
        finally:
            web.should_exit = True
            await serving


async def test_a_stream_without_an_end_is_an_error_to_the_client() -> None:
    """The store went away for too long: the connection is cut, and no client takes what it has for all."""
    async with (
        listening(Limits(patience=0.1)) as (server, client),
        client.stream("POST", "/v1/responses", json=STALLED) as answer,
    ):
        chunks = answer.aiter_bytes()
        read = await anext(chunks)
        server.cluster.store.available = False

        async def read_on() -> None:
            nonlocal read
            async for chunk in chunks:
                read += chunk

        with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
            await read_on()
        assert b"response.created" in read
        assert b"[DONE]" not in read


async def test_a_connection_that_breaks_leaves_no_subscription() -> None:
    async with listening() as (server, client):
        async with client.stream("POST", "/v1/responses", json=STALLED) as answer:
            assert b"response.created" in await anext(answer.aiter_bytes())
            assert server.cluster.bus._subscriptions
        await until(lambda: not server.cluster.bus._subscriptions)


async def test_an_answer_before_the_body_was_read_reaches_the_client() -> None:
    """A body that is too long is refused while it is still being sent, and the next request is served."""
    async with listening(Limits(body=1000)) as (_, client):
        refused = await client.post("/v1/responses", content=b" " * 10_000_000)
        assert refused.status_code == 413
        assert (await client.get("/v1/models")).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_head_request_is_answered_without_a_body(method: str) -> None:
    async with listening() as (_, client):
        answer = await client.request(method, "/v1/models")
        assert (answer.status_code, bool(answer.content)) == (200, method == "GET")
        assert (await client.get("/healthz")).json() == {"status": "ok"}
