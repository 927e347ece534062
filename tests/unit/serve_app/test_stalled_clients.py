"""A client that takes nothing is cut, costs little until then, and disturbs nobody; its response goes on."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import orjson
import pytest

from serve_app.call import PIECE_BYTES, Call
from serve_app.limits import Limits
from serve_app.open_calls import CUT, OpenCalls
from tests.unit.serve_app.served import Served, until
from tests.unit.serve_app.test_sockets import listening
from tests.virtual_time import VirtualTimeLoop, in_virtual_time

STALL = 0.5
LONG = {"model": "simulated", "input": "x", "instructions": "x" * 3_000_000, "stream": True}
"""Its first, second and last events hold the instructions."""


@asynccontextmanager
async def unread(port: int, body: Mapping[str, object]) -> AsyncIterator[socket.socket]:
    """A client that asks and does not read, with little room for an answer."""
    data = orjson.dumps(body)
    head = f"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n"
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
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


async def written(pieces: int, take: Callable[[], Awaitable[None]]) -> int:
    """How many of so many pieces a client has taken once its call is over; `take` is how it takes one."""
    taken = 0

    async def send(message: object) -> None:
        nonlocal taken
        await take()
        taken += 1

    calls = OpenCalls(stall=30)
    call = Call({"type": "http", "headers": []}, asyncio.Queue[dict[str, object]]().get, send)

    async def serve() -> None:
        with calls.answering(call):
            await call.write(b"x" * (pieces * PIECE_BYTES))

    await asyncio.create_task(serve())
    assert not len(calls)
    return taken


@in_virtual_time
async def test_one_that_reads_slowly_is_not_cut() -> None:
    """Each piece that it takes is progress, also where that takes nearly as long as it may."""
    assert await written(5, lambda: asyncio.sleep(29.9)) == 5
    assert asyncio.get_running_loop().time() >= 149


@in_virtual_time
async def test_one_that_takes_too_long_for_a_piece_is_cut() -> None:
    assert await written(5, lambda: asyncio.sleep(32)) == 0
    assert 30 <= asyncio.get_running_loop().time() <= 31


@in_virtual_time
async def test_a_process_that_was_halted_does_not_blame_its_clients() -> None:
    """Nobody can take anything of one that does nothing, and its clock goes on."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)

    async def take() -> None:
        await asyncio.sleep(10)
        loop.skip(3600)
        await asyncio.sleep(10)

    assert await written(2, take) == 2


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
