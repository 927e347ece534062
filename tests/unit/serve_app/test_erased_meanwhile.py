"""A response is erased while somebody follows it: nobody hangs, and nobody is shown a made-up end."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from tests.unit.serve_app.served import Connection, Served, events_of, served, until

ENDLESS = {"model": "simulated?deltas=5&stall_after=3", "input": "x"}


def asked(server: Served, *, stream: bool) -> Connection:
    return Connection(server.api, "POST", "/v1/responses", orjson.dumps({**ENDLESS, "stream": stream}))


async def running(server: Served) -> str:
    """The id of the response that stands in the middle of its answer."""
    response_id = ""

    def stands() -> bool:
        nonlocal response_id
        ids = [key for host in server.cluster.factory.hosts.values() for key in _running(host)]
        response_id = ids[0] if ids else ""
        return bool(ids)

    await until(stands)
    return response_id


def _running(host: object) -> list[str]:
    inner = getattr(host, "_host", None)
    return [one.response_id for one in inner.running()] if inner is not None else []


async def erase(server: Served, response_id: str) -> None:
    assert (await server.client.delete(f"/v1/responses/{response_id}")).status_code == 200
    assert (await server.client.get(f"/v1/responses/{response_id}")).status_code == 404


async def test_who_hears_it_sees_the_end_that_came_before() -> None:
    """Erasing cancels first, and that end was committed: followers are shown it."""
    async with served() as server:
        stream, plain = asked(server, stream=True), asked(server, stream=False)
        await stream.until(b"output_text.delta")
        for _ in range(2):
            response_id = await running(server)
            await erase(server, response_id)
        events = events_of((await stream.done()).body)
        assert events[-1]["type"] == "response.incomplete"
        assert events[-1]["response"]["status"] == "cancelled"
        assert (await plain.done()).status == 200
        assert orjson.loads(plain.body)["status"] == "cancelled"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
async def test_who_must_read_the_log_for_it_is_told_that_it_is_gone(
    monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """The bus lost its end, and the log has it no more: a stream is cut, a plain request hears 404."""
    async with served() as server:
        connection = asked(server, stream=stream)
        response_id = await running(server)
        if stream:
            await connection.until(b"output_text.delta")
        monkeypatch.setattr(server.cluster.bus, "publish", lambda batch: None)
        await erase(server, response_id)
        await connection.done()
        if stream:
            assert b"[DONE]" not in connection.body
            assert not connection.complete
        else:
            assert connection.status == 404
            assert response_id in orjson.loads(connection.body)["error"]["message"]


async def test_a_resumed_stream_of_what_is_erased_meanwhile_ends() -> None:
    """Somebody reads it anew from its start while it goes."""
    async with served() as server:
        first = asked(server, stream=True)
        await first.until(b"output_text.delta")
        response_id = await running(server)
        path = f"/v1/responses/{response_id}"
        again = [Connection(server.api, "GET", path, query="stream=true") for _ in range(5)]
        await asyncio.sleep(0)
        await erase(server, response_id)
        for connection in (first, *again):
            await connection.done()
            if connection.complete and connection.status == 200:
                assert events_of(connection.body)[-1]["response"]["status"] == "cancelled"
