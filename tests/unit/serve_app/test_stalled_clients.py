"""A client that takes nothing is cut, costs little until then, and disturbs nobody; its response goes on."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import orjson
import pytest

from serve_app.call import Call
from serve_app.limits import Limits
from serve_app.open_calls import CUT, OpenCalls
from tests.unit.serve_app.served import Served, until
from tests.unit.serve_app.test_sockets import listening

STALL = 0.5
LONG = {"model": "simulated", "input": "x", "instructions": "x" * 3_000_000, "stream": True}
"""Its first, second and last events hold the instructions."""


@asynccontextmanager
async def unread(port: int, body: Mapping[str, object], room: int = 4096) -> AsyncIterator[socket.socket]:
    """A client that asks and does not read, with little room for an answer."""
    data = orjson.dumps(body)
    head = f"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, head.encode() + data)
        yield client


async def newest(server: Served) -> str:
    """The id of the last response that was made."""
    listed = (await server.client.get("/v1/responses?limit=1")).json()["data"]
    return str(listed[0]["id"])


async def test_a_client_that_never_reads_is_cut_and_its_response_ends_in_the_log() -> None:
    before = CUT.value()
    async with listening(Limits(stall=STALL)) as (server, client), unread(client.base_url.port or 0, LONG):
        await until(lambda: server.api.open.streams == 1)
        began = time.monotonic()
        await until(lambda: server.api.open.streams == 0)
        assert time.monotonic() - began >= STALL
        assert CUT.value() == before + 1
        assert not server.cluster.bus._subscriptions
        ended = await server.ended(await newest(server))
        assert ended["status"] == "completed"


async def test_an_answer_in_one_piece_may_stall_too() -> None:
    before = CUT.value()
    body = {"model": "simulated", "input": "x", "instructions": "x" * 9_000_000}
    async with listening(Limits(stall=STALL)) as (server, client), unread(client.base_url.port or 0, body):
        await until(lambda: len(server.api.open) == 1)
        await until(lambda: not len(server.api.open))
        assert CUT.value() == before + 1


async def test_one_that_stalls_costs_a_bounded_buffer_and_disturbs_nobody() -> None:
    """What it does not take stays in the log; others are answered meanwhile."""
    async with listening(Limits(stall=60)) as (server, client), unread(client.base_url.port or 0, LONG):
        await until(lambda: server.api.open.streams == 1)
        ended = await server.ended(await newest(server))
        assert ended["status"] == "completed"
        assert server.api.open.streams == 1, "its client has not taken it yet"
        subscriptions = server.cluster.bus._subscriptions.values()
        held = [one for every in subscriptions for one in every]
        assert all(one._bytes <= 1 << 20 and len(one._held) <= 256 for one in held)
        answer = await client.post("/v1/responses", json={"model": "simulated", "input": "me?"})
        assert answer.json()["status"] == "completed"


@pytest.mark.thorough  # It is about time.
async def test_one_that_reads_slowly_is_not_cut() -> None:
    before = CUT.value()
    loop = asyncio.get_running_loop()
    # The system tells of room for more only once a third of its own buffer, of some megabytes, is free.
    async with (
        listening(Limits(stall=4 * STALL)) as (server, client),
        unread(client.base_url.port or 0, LONG, room=1 << 16) as slow,
    ):
        began = time.monotonic()
        read = bytearray()
        while not read.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            data = await loop.sock_recv(slow, 65536)
            assert data, "it was cut"
            read += data
            await asyncio.sleep(STALL / 25)
        assert time.monotonic() - began > 4 * STALL
        assert b"response.completed" in read
        assert CUT.value() == before
        assert server.api.open.streams == 0


async def test_who_is_ended_for_another_reason_is_not_taken_for_stalled() -> None:
    """A server that shuts down cancels what it runs, and must see it end."""
    calls = OpenCalls(stall=3600)
    call = Call({"type": "http", "headers": []}, asyncio.Queue[dict[str, object]]().get, _never)

    async def serve() -> None:
        with calls.answering(call):
            await call.answer(b"")

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not len(calls)


async def _never(message: object) -> None:
    await asyncio.Event().wait()
