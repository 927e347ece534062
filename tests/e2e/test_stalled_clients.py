"""Clients that never read: they cost little memory and are cut; what they asked for ends in the log."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.e2e.conftest import SERVER_LIMIT_S
from tests.e2e.parts import HAPROXY, REPLICA, memory, named
from tests.e2e.upstream import Upstream
from tests.e2e.wire import output_text
from tests.fakes.script import words
from tests.launching import Instance, until

CLIENTS = 4 if os.environ.get("RAYSPOND_ISOLATION") == "dedicated" else 8
STALL_S = 20
WORD = "y" * 8000
DELTAS = 1500
"""Of one answer: 12 MB, far more than what sockets hold on the way."""
EACH_BYTES = 16 << 20
"""What it may cost: some pages of the log, folded, and the frames on the way.  Where sockets may grow as they
like they take most of the answer, and each costs twice as much."""
CUT_S = 180.0
"""The latest that the last one is cut, on a busy machine."""


@pytest.fixture(scope="module")
def impatient(
    tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, environment: dict[str, str]
) -> Iterator[Instance]:
    """A server that waits for nobody for longer than it must."""
    directory = tmp_path_factory.mktemp("impatient")
    models = upstream.models(directory / "models.yaml")
    given = {**environment, "RAYSPOND_CLIENT_STALL_S": str(STALL_S)}
    running = Instance(directory / "data", "--config", str(models), app=None, **given)
    try:
        yield running.wait_ready()
        running.stop()
    finally:
        running.kill()


@pytest.fixture(scope="module")
def patient(impatient: Instance, upstream: Upstream) -> Iterator[list[Future[httpx.Response]]]:
    """Clients that hear nothing for longer than that, one of a plain answer and one of a stream."""
    upstream.tell("firehose", f"deltas=3&first_ms={int(1.5 * STALL_S * 1000)}")

    def ask(stream: bool) -> httpx.Response:
        body = {"model": "firehose", "input": "x", "stream": stream}
        return httpx.post(f"{impatient.url}/v1/responses", json=body, timeout=CUT_S)

    with ThreadPoolExecutor(2) as pool:
        yield [pool.submit(ask, stream) for stream in (False, True)]


@asynccontextmanager
async def asked(url: str, model: str) -> AsyncIterator[socket.socket]:
    """A connection that asks for a stream and does not read it."""
    body = json.dumps({"model": model, "input": "x", "stream": True})
    parts = urlsplit(url)
    head = (
        f"POST /v1/responses HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.setblocking(False)
        await loop.sock_connect(client, (parts.hostname, parts.port))
        await loop.sock_sendall(client, (head + body).encode())
        yield client


async def read_out(client: socket.socket) -> bytes:
    """All that is on the way still, once the connection is cut."""
    loop = asyncio.get_running_loop()
    read = bytearray()
    async with asyncio.timeout(CUT_S):
        while len(read) < 64 << 20:
            try:
                data = await loop.sock_recv(client, 1 << 20)
            except ConnectionResetError:
                break
            if not data:
                break
            read += data
    return bytes(read)


async def over(http: httpx.AsyncClient, clients: list[socket.socket]) -> list[str]:
    """The ids of the responses that these clients asked for, once all of them are over."""
    async with asyncio.timeout(CUT_S):
        ids = [await _begun(client) for client in clients]
        while True:
            hosts = (await http.get("/hosts")).json()["data"]
            running = {one["id"] for host in hosts for one in host["responses"]}
            if not running & set(ids):
                return ids
            await asyncio.sleep(0.5)


def _held(clients: list[socket.socket]) -> bool:
    """Whether the server still holds one of their connections."""
    ports = {client.getsockname()[1] for client in clients}
    return any(
        each.status == psutil.CONN_ESTABLISHED and each.raddr and each.raddr.port in ports
        for each in psutil.net_connections("tcp4")
    )


async def _begun(client: socket.socket) -> str:
    """The id in the first event, which is looked at and not taken."""
    while True:
        with suppress(BlockingIOError):
            found = re.search(rb"resp_\w+", client.recv(4096, socket.MSG_PEEK))
            if found is not None:
                return found[0].decode()
        await asyncio.sleep(0.1)


@pytest.mark.usefixtures("patient")  # They wait meanwhile.
async def test_who_never_reads_is_cut_and_the_answer_ends_in_the_log(
    impatient: Instance, upstream: Upstream
) -> None:
    upstream.tell("flood", f"text={(WORD + ' ') * DELTAS}end")
    serving = named(impatient, REPLICA, HAPROXY)
    async with (
        httpx.AsyncClient(base_url=impatient.url, timeout=SERVER_LIMIT_S) as http,
        AsyncExitStack() as stack,
    ):
        warm = await http.post("/v1/responses", json={"model": "fake?deltas=5", "input": "x"})
        assert warm.json()["status"] == "completed"
        before = memory(serving)
        clients = [await stack.enter_async_context(asked(impatient.url, "flood")) for _ in range(CLIENTS)]
        ended = await over(http, clients)
        grown = memory(serving) - before
        # Nobody reads until all are cut: whoever read would make progress.
        await asyncio.to_thread(until, lambda: not _held(clients), "the end of every connection", CUT_S)
        shown = await asyncio.gather(*map(read_out, clients))
        assert all(b"response.created" in read for read in shown)
        assert not any(b"response.completed" in read for read in shown), "it was cut before the end"
        assert grown < CLIENTS * EACH_BYTES, f"{grown >> 20} MiB"
        for response_id in ended[:2]:
            kept = (await http.get(f"/v1/responses/{response_id}")).json()
            assert kept["status"] == "completed"
            assert output_text(kept) == f"{(WORD + ' ') * DELTAS}end"
        answer = await http.post("/v1/responses", json={"model": "fake?deltas=8", "input": "x"})
        assert answer.json()["output"][0]["content"][0]["text"] == "".join(words(8))


def test_who_waits_long_for_an_answer_is_not_taken_for_one_that_does_not_read(
    patient: list[Future[httpx.Response]],
) -> None:
    """Silence is the model's, not the client's: neither a stream nor a plain answer is cut for it."""
    plain, stream = (asked.result(CUT_S) for asked in patient)
    assert plain.json()["status"] == "completed"
    assert b"response.completed" in stream.content
