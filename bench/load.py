"""The load: many clients that post, read the stream to its end and check what they read.

The client is raw asyncio, because a generator that costs more than the server measures itself.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson

DELTA = b'"type":"response.output_text.delta"'
DONE = b"data: [DONE]\n\n"
COMPLETED = b'"type":"response.completed"'
STREAM_TIMEOUT = 120.0
"""Seconds after which a stream counts as hung."""


class WrongAnswer(Exception):
    """A stream was not what the upstream said."""


@dataclass(slots=True)
class Stream:
    """One stream as its client saw it."""

    started: float
    first_delta: float = 0.0
    ended: float = 0.0
    deltas: int = 0
    gaps: list[float] = field(default_factory=list)
    """Seconds between reads that brought deltas."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to ask for."""

    name: str
    model: str
    clients: int
    deltas: int
    seconds: float
    """How long to begin new streams; those begun are read to their ends."""
    every: float = 0.0
    """Seconds from one beginning of a client's streams to the next; 0: as soon as one has ended."""
    most: int | None = None
    """Streams of all clients together, where `seconds` is not to decide."""
    interval_ms: float = 0.0
    """From one delta to the next; 0: as fast as they come."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of a load."""

    streams: int
    seconds: float
    deltas: int
    whole: Sequence[float]
    first: Sequence[float]
    gaps: Sequence[float]

    def __add__(self, other: Figures) -> Figures:
        """Those of both, one after the other."""
        return Figures(
            self.streams + other.streams,
            self.seconds + other.seconds,
            self.deltas + other.deltas,
            [*self.whole, *other.whole],
            [*self.first, *other.first],
            [*self.gaps, *other.gaps],
        )

    @property
    def streams_per_s(self) -> float:
        """Whole streams a second."""
        return self.streams / self.seconds

    @property
    def deltas_per_s(self) -> float:
        """Deltas a second, over all streams."""
        return self.deltas / self.seconds


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=1000, method="inclusive")[min(int(share * 1000), 999) - 1]


def request(url: str, model: str, key: str = "bench") -> bytes:
    """The bytes that ask `POST <url>` for a stream."""
    parts = urlsplit(url)
    body = orjson.dumps({"model": model, "input": "bench", "stream": True})
    return (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def drive(url: str, load: Load, expected: str | None, *, key: str = "bench") -> Figures:
    """Run a load against `POST <url>`.  Raises `WrongAnswer` at the first stream that is not right.

    `expected` is the text every stream must carry, or None where only its length is known.
    """
    parts = urlsplit(url)
    asked = request(url, load.model, key)
    streams: list[Stream] = []
    begun = 0
    began = time.perf_counter()
    until = began + load.seconds

    async def client(number: int) -> None:
        nonlocal begun
        due = began + load.every * number / load.clients
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**22)
        try:
            while max(due, time.perf_counter()) < until and begun != load.most:
                begun += 1
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                due += load.every
                stream = Stream(time.perf_counter())
                writer.write(asked)
                try:
                    text = await asyncio.wait_for(_read(reader, stream), STREAM_TIMEOUT)
                except asyncio.IncompleteReadError as cut:
                    if cut.partial:
                        raise
                    # An idle connection may be closed, as HAProxy does when replicas come or go.
                    begun -= 1
                    writer.close()
                    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**22)
                    continue
                check(text, stream, load, expected, whole=len(streams) % 20 == 0)
                streams.append(stream)
        finally:
            writer.close()

    async with asyncio.TaskGroup() as clients:
        for number in range(load.clients):
            clients.create_task(client(number))
    return Figures(
        streams=len(streams),
        seconds=time.perf_counter() - began,
        deltas=sum(stream.deltas for stream in streams),
        whole=[stream.ended - stream.started for stream in streams],
        first=[stream.first_delta - stream.started for stream in streams],
        gaps=[gap for stream in streams for gap in stream.gaps],
    )


async def _read(reader: asyncio.StreamReader, stream: Stream) -> bytes:
    """The body of one chunked answer; times of deltas go to `stream`."""
    status = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in status[:20]:
        raise WrongAnswer(f"{status[:200]!r} {await reader.read(1000)!r}")
    chunked = b"transfer-encoding: chunked" in status.lower()
    if not chunked:
        raise WrongAnswer(f"not a stream: {status[:300]!r}")
    pieces: list[bytes] = []
    last = stream.started
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        piece = await reader.readexactly(size + 2)
        if size == 0:
            break
        pieces.append(piece[:-2])
        deltas = piece.count(DELTA)
        if deltas:
            now = time.perf_counter()
            if stream.deltas == 0:
                stream.first_delta = now
            else:
                stream.gaps.append(now - last)
            last = now
            stream.deltas += deltas
    stream.ended = time.perf_counter()
    body = b"".join(pieces)
    # A chunk may end in the middle of a frame, so the pieces' own counts serve the times only.
    stream.deltas = body.count(DELTA)
    return body


def check(body: bytes, stream: Stream, load: Load, expected: str | None, *, whole: bool) -> None:
    """Every stream: its end and its number of deltas.  One in twenty: every word and number."""
    # OpenAI's own streams end with the completed response; many servers say `[DONE]` behind it.
    completed = body.endswith(b"\n\n") and COMPLETED in body[body.rfind(b"\n\n", 0, -2) :]
    if not (completed or body.endswith(DONE)):
        raise WrongAnswer(f"the stream has no end: ...{body[-300:]!r}")
    if stream.deltas != load.deltas:
        raise WrongAnswer(f"{stream.deltas} deltas instead of {load.deltas}")
    if not whole:
        return
    events = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]
    numbers = [event["sequence_number"] for event in events]
    if numbers != list(range(len(events))):
        raise WrongAnswer(f"sequence numbers {numbers[:20]} ...")
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    if expected is not None and text != expected:
        raise WrongAnswer(f"the text is {text[:200]!r}, the upstream said {expected[:200]!r}")
