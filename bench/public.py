"""What subscribers of the public subjects see: `python -m bench.public [--seconds 10] [--share 0.5]`.

Beside `--share` of the streams a second that the server can do, a program of its own hears every event by
core NATS, and another one pulls from JetStream what that keeps.  Latency is from the time that the log has of
the commit, taken when it begins and in whole milliseconds, to the message in the program: so it holds the
commit's own time, too.  Afterwards a new consumer reads what JetStream has captured, from the first message.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import nats
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from bench.load import Load, drive, percentile
from bench.results import Results, add_option
from bench.systems import System, rayspond, upstream
from eventstore.nats_config import STREAM, SUBSCRIBER_INBOX
from eventstore.sql.sqlite_connection import DATABASE
from serve_app.launch.data_dir import RUNTIME
from tests.fakes.script import words

DELTAS: Final = 20
"""Of a stream, flat out."""
CLIENTS: Final = 32
EVERYTHING: Final = "rayspond.>"
ASKED: Final = 1_000_000
"""Messages of one pull request for what is to come: more than there will be."""
PIECE: Final = 10_000
"""Messages of one for what is there: a server hangs up on who asked for more than 64 MiB and is slower."""
READY: Final = "ready"
WAIT_S: Final = 120.0
SETTLED_S: Final = 3.0
"""After the load, for what is still on its way."""

Seen = list[tuple[int, float]]
"""Positions in the log, and when a message of each came: seconds since 1970."""


class Heard:
    """The messages of one subscriber."""

    def __init__(self) -> None:
        self.seen: Seen = []
        self.whole = asyncio.Event()
        self._count = -1

    def until(self, count: int) -> None:
        """`whole` is set with the message of that number."""
        self._count = count
        self.whole.clear()

    async def note(self, message: Msg) -> None:
        """One message; what JetStream says of a request has no position."""
        if message.headers is None or "ce-position" not in message.headers:
            return
        self.seen.append((int(message.headers["ce-position"]), time.time()))
        if len(self.seen) == self._count:
            self.whole.set()


async def _connect(url: str) -> Client:
    client: Client = await nats.connect(url, inbox_prefix=SUBSCRIBER_INBOX.encode())
    return client


async def _listen(url: str, tell: Connection) -> None:
    """Core NATS: note every message until told to end."""
    client, heard = await _connect(url), Heard()
    await client.subscribe(EVERYTHING, cb=heard.note, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await client.flush()
    await client.flush()  # The first ping of nats-py may overtake the subscription.
    tell.send(READY)
    await asyncio.to_thread(tell.recv)
    tell.send(heard.seen)
    await client.close()


async def _pull(url: str, tell: Connection) -> None:
    """JetStream: note what comes from now on until told to end."""
    client, heard = await _connect(url), Heard()
    await _ask(client, await _consume(client, heard, DeliverPolicy.NEW), DeliverPolicy.NEW, ASKED)
    tell.send(READY)
    await asyncio.to_thread(tell.recv)
    tell.send(heard.seen)
    await client.close()


async def _catch_up(url: str, tell: Connection) -> None:
    """JetStream: everything that was captured, from its beginning; how many events in how many seconds."""
    client, heard = await _connect(url), Heard()
    captured = (await client.jetstream().stream_info(STREAM)).state.messages
    tell.send(READY)
    began = time.perf_counter()
    inbox = await _consume(client, heard, DeliverPolicy.ALL)
    for first in range(0, captured, PIECE):
        count = min(PIECE, captured - first)
        heard.until(first + count)
        await _ask(client, inbox, DeliverPolicy.ALL, count)
        await asyncio.wait_for(heard.whole.wait(), WAIT_S)
    tell.send((captured, time.perf_counter() - began))
    await client.close()


async def _consume(client: Client, heard: Heard, where: DeliverPolicy) -> str:
    """A consumer of the stream; the inbox to which it delivers what is asked for."""
    wanted = ConsumerConfig(name=where.value, deliver_policy=where, ack_policy=AckPolicy.NONE)
    await client.jetstream().add_consumer(STREAM, wanted)
    inbox: str = client.new_inbox()
    await client.subscribe(inbox, cb=heard.note, pending_msgs_limit=-1, pending_bytes_limit=-1)
    return inbox


async def _ask(client: Client, inbox: str, where: DeliverPolicy, count: int) -> None:
    """One pull request for so many messages, which come as they are there.

    `fetch` of nats-py would wait until a batch is full.
    """
    asked = orjson.dumps({"batch": count, "expires": int(WAIT_S * 1e9)})
    await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{where.value}", asked, reply=inbox)
    await client.flush()


Program = Callable[[str, Connection], Coroutine[None, None, None]]


def _run(program: Program, url: str, tell: Connection) -> None:
    asyncio.run(program(url, tell))


@contextlib.contextmanager
def _beside(program: Program, url: str) -> Iterator[Connection]:
    """A subscriber in a process of its own, as it would be; it is ready."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_run, args=(program, url, theirs), daemon=True)
    process.start()
    try:
        assert _said(ours) == READY
        yield ours
    finally:
        process.terminate()
        process.join()


def _said(by: Connection) -> Any:
    """What a subscriber says next.  Raises `RuntimeError` where it says nothing."""
    if not by.poll(WAIT_S):
        raise RuntimeError(f"a subscriber said nothing for {WAIT_S:.0f} s")
    return by.recv()


def measure(system: System, data: Path, seconds: float, share: float, results: Results) -> None:
    """Print and keep the figures."""
    url = str(_when_written(data / RUNTIME)["nats_url"])
    model, said = system.scripted(DELTAS), "".join(words(DELTAS))

    def load(every: float = 0.0) -> float:
        asked = Load("", model, CLIENTS, DELTAS, seconds, every=every)
        return asyncio.run(drive(system.url, asked, said)).streams_per_s

    load()
    most = load()
    with _beside(_listen, url) as core, _beside(_pull, url) as pull:
        reached = load(every=CLIENTS / (most * share))
        time.sleep(SETTLED_S)
        seen: dict[str, Seen] = {}
        for name, program in (("core NATS", core), ("JetStream, pull", pull)):
            program.send("end")
            seen[name] = _said(program)
    print(f"at most {most:,.0f} streams/s of {DELTAS} deltas; beside {reached:,.0f}:")
    committed = _committed(data / DATABASE)
    for name, messages in seen.items():
        late = [at * 1e3 - committed[position] for position, at in messages]
        p50, p99 = (percentile(late, each) for each in (0.5, 0.99))
        print(
            f"{name}: {len(late):,} events, commit to subscriber p50 {p50:.0f}, p99 {p99:.0f} ms", flush=True
        )
        results.add(what=name, share=reached / most, events=len(late), p50_ms=p50, p99_ms=p99)
    with _beside(_catch_up, url) as reader:
        events, took = _said(reader)
    print(f"catch-up: {events:,} captured events at {events / took:,.0f} a second")
    results.add(what="catch-up", events=events, events_per_s=events / took)


def _when_written(path: Path) -> dict[str, Any]:
    """What is in a file that is there soon after the server is ready.  Raises `RuntimeError`."""
    deadline = time.monotonic() + WAIT_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path} is not there")
        time.sleep(0.1)
    return dict(orjson.loads(path.read_bytes()))


def _committed(log: Path) -> dict[int, int]:
    """When each position was committed, in milliseconds since 1970."""
    with contextlib.closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT position, recorded_at FROM records"))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.public", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load (default: 10)")
    parser.add_argument("--share", type=float, default=0.5, help="of the most (default: 0.5)")
    add_option(parser)
    options = parser.parse_args()
    results = Results("public", options.json)
    with tempfile.TemporaryDirectory(prefix="rsb-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        with upstream(scratch) as url, rayspond("shared", url, scratch) as system:
            measure(system, scratch / "data-shared", options.seconds, options.share, results)


if __name__ == "__main__":
    main()
