"""What a Serve replica does for a request and its answer; and the line of its orders, both ends."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final

import uvloop

from actors.aggregate_writer import AggregateWriter
from actors.local_orders import LocalLine, LocalLines, LocalOrders
from actors.orders import AggregateOrder, Answer, Order
from bench.budget.cost import Clock, Job, Row, cost_of, cpu_of
from bench.budget.sample import BODY, CATALOG, LIMITS, Commit, Sample
from eventstore import batch_codec
from eventstore.events import Batch
from eventstore.memory import MemoryEventStore, MemoryLiveBus
from runtime.project.aggregate import CATEGORY
from runtime.project.commands import CreateKey
from runtime.project.state import DEFAULT_PROJECT
from serve_app.auth import Auth
from serve_app.call import Call, Departure
from serve_app.guard import Guard
from serve_app.json_body import parse_object, read_body
from serve_app.keys import KeyHashes
from serve_app.projects import Projects
from serve_app.request_body import Asked, read_create
from serve_app.sse import Batches, send_events

JOBS: Final = 500
DELTAS: Final = 200
"""Of the stream whose deltas are counted."""
WAIT_S: Final = 30.0
_HEADERS: Final = (
    (b"host", b"localhost:8088"),
    (b"user-agent", b"OpenAI/Python 2.0.0"),
    (b"accept", b"application/json"),
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(BODY)),
)


async def rows(sample: Sample) -> list[Row]:
    """Its rows, in the order in which a request meets them."""
    replica = partial(Row, "replica")
    response = [commit.batch for commit in sample.response]
    more = [*response[:1], *[sample.delta.batch] * DELTAS, *response[1:]]
    shown = await _cpu(lambda: _show(response))
    deltas = (await cost_of(lambda: [_show(more) for _ in range(10)])).cpu - shown
    return [
        replica("auth, an API key", request=await _auth(with_key=True)),
        replica("auth, no keys configured", request=await _auth(with_key=False), aside=True),
        replica("read and validate the body", request=await _cpu(_read)),
        *await _order_rows(sample),
        replica(
            "decode live frames",
            response=sum(cpu_of(_decode(commit)) for commit in sample.response),
            delta=cpu_of(_decode(sample.delta)),
        ),
        replica("SSE, up to the server's send", response=shown, delta=deltas / DELTAS),
    ]


async def _cpu(job: Callable[[], Job], clock: Clock = time.process_time) -> float:
    return (await cost_of(lambda: [job() for _ in range(JOBS)], clock=clock)).cpu


# -- The request ---------------------------------------------------------------------------------------------


async def _auth(*, with_key: bool) -> float:
    store, hashes = MemoryEventStore(), KeyHashes("the secret of the bench")
    scope: dict[str, Any] = {"headers": _HEADERS, "client": ("127.0.0.1", 50_000)}
    if with_key:
        text, key = hashes.make(DEFAULT_PROJECT, "bench", os.urandom)
        made = CreateKey(DEFAULT_PROJECT, key, int(time.time()), "bench")
        writer = AggregateWriter(store, MemoryLiveBus(), asyncio.sleep)
        await writer.obey(AggregateOrder(CATEGORY, DEFAULT_PROJECT, made))
        scope["headers"] = (*_HEADERS, (b"authorization", f"Bearer {text}".encode()))
    auth = Auth(Projects(store), hashes, Guard())
    return await _cpu(lambda: auth.admit(scope, "project"))


async def _read() -> Asked:
    call = Call({"headers": _HEADERS}, _receive, _send)
    body = await read_body(call, LIMITS.body, LIMITS.body_seconds)
    return read_create(parse_object(body), CATALOG, LIMITS, len(body))


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": BODY, "more_body": False}


async def _send(message: Any) -> None:
    """What a server would write to its socket."""


# -- The order -----------------------------------------------------------------------------------------------


async def _order_rows(sample: Sample) -> list[Row]:
    async with _line() as (line, of_host):
        given = await _cpu(lambda: line.obey([sample.order]))
        taken = await _cpu(lambda: line.obey([sample.order]), of_host)
    return [
        Row("replica", "order to a host of the node", request=given),
        Row("host", "take an order on that line", request=taken),
    ]


@asynccontextmanager
async def _line() -> AsyncIterator[tuple[LocalLine, Clock]]:
    """A line to a host's end in a process of its own, and that process's clock as of its last order."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    used = spawn.RawValue("d")
    process = spawn.Process(target=_host, args=(theirs, used), daemon=True)
    process.start()
    lines = LocalLines()
    try:
        if not ours.poll(WAIT_S):
            raise RuntimeError("the host's end of a line said nothing")
        line = await lines.to(ours.recv())
        assert line is not None, "both ends are of one user"
        yield line, lambda: float(used.value)
    finally:
        lines.close()
        process.terminate()
        process.join()


def _host(tell: Connection, used: Any) -> None:
    uvloop.run(_take_orders(tell, used))


async def _take_orders(tell: Connection, used: Any) -> None:
    async def obey(orders: Sequence[Order]) -> Answer:
        used.value = time.process_time()
        return Answer([None] * len(orders), 1)

    taken = LocalOrders(obey)
    await taken.open()
    tell.send(taken.address)
    await asyncio.get_running_loop().create_future()  # Until it is ended.


# -- The answer ----------------------------------------------------------------------------------------------


def _decode(commit: Commit) -> Callable[[], object]:
    return partial(batch_codec.decode, commit.batch.channel, commit.message)


async def _show(batches: Sequence[Batch]) -> None:
    departure = Departure(_never)
    await send_events(Call({}, _never, _send), _each(batches), departure, LIMITS.keep_alive)
    await departure.aclose()


async def _each(batches: Sequence[Batch]) -> Batches:
    for batch in batches:
        yield batch


async def _never() -> dict[str, Any]:
    """The client stays."""
    left: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    return await left
