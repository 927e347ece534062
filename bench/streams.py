"""Many paced streams at once, each read to its end and checked word by word.

`python -m bench.streams [--rows 256x50,1000x5,5000x1] [--seconds 20] [--only echo]`: a row is so many streams
at so many deltas a second, of Rayspond, of the same core in one process and of the bare echo; all of them are
open together for `--seconds`.  `--rows 16x5,64x5,256x5 --only shared` makes a curve.  A gap is what lies
between two reads that brought deltas: deltas that come together are one late read.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.load import DELTA, Load, Stream, WrongAnswer, check, drive, percentile, request
from bench.processes import cpu_seconds, pss_mib
from bench.results import Results, add_option
from bench.systems import ECHO, ONE_PROCESS, SHARED, System, echo, one_process, rayspond, upstream

PER_HOST: Final = 950
"""Streams of one host.  It has up to 4,096 slots, but one event loop: two hosts for 5,000 streams used less
of the processors, but their gaps were 4.1 to 5.4 paces at p99, those of six 3.2 to 3.4."""
SPARE: Final = 512
"""Slots, connections and files for what is no stream."""
END: Final = b"\r\n0\r\n\r\n"
"""The last chunk of an answer, behind the one before."""
LATE_S: Final = 120.0
"""How long a row may take beyond its pace."""

_HEAD: Final = (
    "| | streams | deltas/s each | open | gap p50 / p99, paces | first delta p50 / p99, ms | KiB a stream "
    "| CPU, us a delta |"
)


@dataclass(frozen=True, slots=True)
class Row:
    """So many streams at that pace."""

    streams: int
    per_s: float

    @classmethod
    def parse(cls, text: str) -> Row:
        """`256x50`."""
        streams, _, per_s = text.partition("x")
        return cls(int(streams), float(per_s))


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a row."""

    streams: list[Stream]
    open: int
    """Streams that were open when memory was looked at."""
    kib: float
    """Memory of all processes for each of those."""
    cpu: dict[str, float]
    """Seconds on a processor, by kind of process."""


class Answer(asyncio.Protocol):
    """One stream's connection: asks, notes when deltas come, keeps the bytes for later."""

    def __init__(self, asked: bytes) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stream = Stream(0.0)
        self._asked = asked
        # Copied into one: a read's bytes would each keep a mapping of their own, of which there are 65,530.
        self._answer = bytearray()
        self._tail = b""
        self._last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.WriteTransport)
        self.stream.started = time.perf_counter()
        transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        """Note the time, and little else: what costs time here is measured as the server's."""
        self._answer += data
        if DELTA in data:
            now = time.perf_counter()
            if self._last:
                self.stream.gaps.append(now - self._last)
            else:
                self.stream.first_delta = now
            self._last = now
        self._tail = (self._tail + data[-len(END) :])[-len(END) :]
        if self._tail == END:
            self.stream.ended = time.perf_counter()
            self.over.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever is cut before its end has ended, too; `body` tells."""
        if not self.over.done():
            self.over.set_result(None)

    def body(self) -> bytes:
        """The whole answer.  Raises `WrongAnswer` where it is none."""
        answer = bytes(self._answer)
        head, at = answer[:300], answer.find(b"\r\n\r\n") + 4
        if b" 200 " not in head[:20] or not self.stream.ended:
            raise WrongAnswer(f"{head!r} ... {answer[-300:]!r}")
        chunks: list[bytes] = []
        while True:
            begin = answer.index(b"\r\n", at) + 2
            length = int(answer[at:begin].split(b";")[0], 16)
            if length == 0:
                return b"".join(chunks)
            chunks.append(answer[begin : begin + length])
            at = begin + length + 2


async def measure(system: System, row: Row, seconds: float, per_s: float) -> Seen:
    """Open the streams, `per_s` a second; look at memory once all are open; read all to their ends."""
    parts = urlsplit(system.url)
    opening = row.streams / per_s
    deltas = max(2, int(row.per_s * (opening + seconds)))
    asked = request(system.url, system.scripted(deltas, 1e3 / row.per_s))
    answers: list[Answer] = []
    loop = asyncio.get_running_loop()
    assert parts.hostname, system.url
    idle, used = pss_mib(system.process), cpu_seconds(system.process)
    began = time.perf_counter()
    for number in range(row.streams):
        await asyncio.sleep(max(0.0, began + number / per_s - time.perf_counter()))
        _, answer = await loop.create_connection(lambda: Answer(asked), parts.hostname, parts.port or 80)
        answers.append(answer)
    await asyncio.sleep(seconds / 2)
    running = sum(bool(answer.stream.first_delta) and not answer.over.done() for answer in answers)
    busy = await asyncio.to_thread(pss_mib, system.process)
    async with asyncio.timeout(deltas / row.per_s + LATE_S):
        await asyncio.gather(*(answer.over for answer in answers))
    cpu = {kind: now - used.get(kind, 0.0) for kind, now in cpu_seconds(system.process).items()}
    said = system.said(deltas)
    load = Load("paced", "", row.streams, deltas, seconds)
    for answer in answers:
        body = answer.body()
        answer.stream.deltas = body.count(DELTA)
        check(body, answer.stream, load, said, whole=True)
    return Seen([answer.stream for answer in answers], running, (busy - idle) * 1024 / max(1, running), cpu)


def tell(system: str, row: Row, seen: Seen, results: Results) -> str:
    """A row of Markdown; the same goes to the results."""
    gaps = [gap * row.per_s for stream in seen.streams for gap in stream.gaps]
    first = [(stream.first_delta - stream.started) * 1e3 for stream in seen.streams]
    gap50, gap99 = (percentile(gaps, share) for share in (0.5, 0.99))
    first50, first99 = (percentile(first, share) for share in (0.5, 0.99))
    deltas = sum(stream.deltas for stream in seen.streams)
    cpu = {kind: seconds / deltas * 1e6 for kind, seconds in seen.cpu.items()}
    results.add(
        system=system, streams=row.streams, per_s=row.per_s, open=seen.open, gap_p50=gap50, gap_p99=gap99,
        first_p50_ms=first50, first_p99_ms=first99, kib_a_stream=seen.kib, cpu_us_a_delta=cpu,
    )  # fmt: skip
    spent = ", ".join(f"{kind} {us:,.0f}" for kind, us in sorted(cpu.items(), key=lambda each: -each[1]))
    return (
        f"| {system} | {row.streams:,} | {row.per_s:g} | {seen.open:,} | {gap50:.2f} / {gap99:.2f}"
        f" | {first50:,.0f} / {first99:,.0f} | {seen.kib:,.0f} | {spent} |"
    )


def main() -> None:
    """A server for each row, so that none measures what another left."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__)
    parser.add_argument("--rows", default="256x50,1000x5,5000x1", help="streams x deltas/s each")
    parser.add_argument("--seconds", type=float, default=20.0, help="with all open (default: 20)")
    parser.add_argument("--only", default="", help="only systems whose name holds this")
    parser.add_argument("--open-per-s", type=float, default=100.0, help="begun a second (default: 100)")
    add_option(parser)
    options = parser.parse_args()
    results = Results("streams", options.json)
    rows = [Row.parse(text) for text in options.rows.split(",")]
    room(max(row.streams for row in rows))
    gc.disable()  # It would halt all clients at once, for a tenth of a second and more.
    print(_HEAD)
    print("|---" * 8 + "|", flush=True)
    for row, name in product(rows, (SHARED, ONE_PROCESS, ECHO)):
        if options.only in name:
            with _standing(name, row) as system:
                # What is loaded once is loaded by these.
                asyncio.run(drive(system.url, Load("warm-up", system.scripted(8), 8, 8, 2.0), None))
                seen = asyncio.run(measure(system, row, options.seconds, options.open_per_s))
                print(tell(name, row, seen, results), flush=True)


@contextlib.contextmanager
def _standing(name: str, row: Row) -> Iterator[System]:
    """That system with room for so many streams, until the block ends."""
    # HAProxy is the echo's as well.
    ingress = {"RAY_SERVE_HAPROXY_MAXCONN": str(max(4096, row.streams + SPARE))}
    with tempfile.TemporaryDirectory(prefix="rsb-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        hosts = max(2, -(-row.streams // PER_HOST))
        slots = max(256, row.streams // hosts + SPARE)
        settings = {"RAYSPOND_HOSTS": str(hosts), "RAYSPOND_SLOTS": str(slots), **ingress}
        with upstream(scratch) as url:
            starting: dict[str, Callable[[], AbstractContextManager[System]]] = {
                SHARED: lambda: rayspond("shared", url, scratch, settings),
                ONE_PROCESS: lambda: one_process(url, scratch, slots=row.streams + SPARE),
                ECHO: lambda: echo(scratch, ingress),
            }
            with starting[name]() as system:
                yield system


def room(streams: int) -> None:
    """Let this process, and those that it starts, hold that many connections.  Raises `SystemExit`."""
    # HAProxy has two for a stream.
    wanted = max(10_000, 2 * streams + 4 * SPARE)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise SystemExit(f"{streams} streams need {wanted} open files, {hard} are allowed (ulimit -Hn)")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    main()
