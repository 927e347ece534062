"""Reading a finished response beside the bare echo: `python -m bench.reading [--seconds 4] [--deltas 100]`.

`GET /v1/responses/{id}` against a `GET` of the echo that answers as many bytes, by 1 and by 16 clients.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from bench.load import Figures, WrongAnswer, percentile
from bench.results import Results, add_option
from bench.systems import ECHO, echo, rayspond, upstream
from tests.fakes.script import words

CLIENTS: Final = (1, 16)
TIMEOUT_S: Final = 30.0


async def read(url: str, body: bytes, clients: int, seconds: float) -> Figures:
    """`GET` it again and again.  Raises `WrongAnswer` where the answer is not `body`."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    asked = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer bench\r\n\r\n".encode()
    took: list[float] = []
    began = time.perf_counter()

    async def client() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**22)
        try:
            while time.perf_counter() < began + seconds:
                started = time.perf_counter()
                writer.write(asked)
                try:
                    answer = await asyncio.wait_for(_answer(reader), TIMEOUT_S)
                except asyncio.IncompleteReadError as cut:
                    if cut.partial:
                        raise
                    # An idle connection may be closed, as HAProxy does when replicas come or go.
                    writer.close()
                    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**22)
                    continue
                took.append(time.perf_counter() - started)
                if answer != body:
                    raise WrongAnswer(f"{answer[:300]!r} instead of {body[:300]!r}")
        finally:
            writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return Figures(len(took), time.perf_counter() - began, 0, took, [], [])


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, found, rest = head.partition(b"content-length:")
    if b" 200 " not in head[:20] or not found:
        raise WrongAnswer(f"{head[:300]!r}")
    return await reader.readexactly(int(rest.partition(b"\r\n")[0]))


def measure(url: str, name: str, seconds: float) -> list[Figures]:
    """Its figures, by number of clients."""
    body = httpx.get(url, headers={"authorization": "Bearer bench"}).raise_for_status().content
    rows: list[Figures] = []
    for clients in CLIENTS:
        asyncio.run(read(url, body, clients, min(seconds, 1.0)))
        rows.append(asyncio.run(read(url, body, clients, seconds)))
    print(f"  {name}: {len(body):,} bytes", flush=True)
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.reading", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load (default: 4)")
    parser.add_argument("--deltas", type=int, default=100, help="of the response (default: 100)")
    add_option(parser)
    options = parser.parse_args()
    results = Results("reading", options.json)
    with tempfile.TemporaryDirectory(prefix="rsb-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        with upstream(scratch) as upstream_url, rayspond("shared", upstream_url, scratch) as system:
            asked = {"model": system.scripted(options.deltas), "input": "bench"}
            made = httpx.post(system.url, json=asked, timeout=TIMEOUT_S).raise_for_status()
            text = made.json()["output"][0]["content"][0]["text"]
            if text != "".join(words(options.deltas)):
                raise WrongAnswer(text)
            ours = measure(f"{system.url}/{made.json()['id']}", "rayspond", options.seconds)
        with echo(scratch) as system:
            size = len(made.content)
            floor = measure(f"{system.url}/resp?bytes={size}", ECHO, options.seconds)
    print("| clients | echo: reads/s, p50 / p99 ms | rayspond: reads/s, p50 / p99 ms |")
    print("|---|---|---|")
    for clients, of_echo, of_ours in zip(CLIENTS, floor, ours, strict=True):
        ratio = of_ours.streams_per_s / of_echo.streams_per_s
        print(f"| {clients} | {_told(of_echo)} | {_told(of_ours, f' ({ratio:.2f})')} |")
        results.add(
            clients=clients, ratio=ratio, reads_per_s=of_ours.streams_per_s, echo_per_s=of_echo.streams_per_s,
            p50_ms=1e3 * percentile(of_ours.whole, 0.5), p99_ms=1e3 * percentile(of_ours.whole, 0.99),
        )  # fmt: skip


def _told(figures: Figures, ratio: str = "") -> str:
    p50, p99 = (1e3 * percentile(figures.whole, share) for share in (0.5, 0.99))
    return f"{figures.streams_per_s:,.0f}{ratio}, {p50:.2f} / {p99:.2f}"


if __name__ == "__main__":
    main()
