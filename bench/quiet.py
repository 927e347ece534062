"""What open streams cost while models say nothing: `python -m bench.quiet [--streams 900] [--seconds 15]`.

Agents wait for tools and models most of their time.  Each stream here said one delta and then goes silent for
minutes; the processor time of each kind of process is told beside that of the same server with no stream.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.load import Load, drive, request
from bench.processes import cpu_seconds
from bench.results import Results, add_option
from bench.streams import SPARE, Answer, room
from bench.systems import System, rayspond, upstream

SILENT_MS: Final = 300_000.0
"""From one delta to the next."""
OPEN_PER_S: Final = 40.0
SETTLED_S: Final = 10.0
"""Seconds after which what beginnings cost is over."""


async def spent(system: System, seconds: float) -> dict[str, float]:
    """Milliseconds of processor a second, by kind of process."""
    before = cpu_seconds(system.process)
    await asyncio.sleep(seconds)
    return {
        kind: 1e3 * (now - before.get(kind, 0.0)) / seconds
        for kind, now in cpu_seconds(system.process).items()
    }


async def measure(system: System, streams: int, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    """Without streams, and with that many."""
    await asyncio.sleep(SETTLED_S)
    idle = await spent(system, seconds)
    parts = urlsplit(system.url)
    assert parts.hostname, system.url
    asked = request(system.url, system.scripted(2, SILENT_MS))
    answers: list[Answer] = []
    for _ in range(streams):
        await asyncio.sleep(1 / OPEN_PER_S)
        connecting = asyncio.get_running_loop().create_connection(
            lambda: Answer(asked), parts.hostname, parts.port or 80
        )
        answers.append((await connecting)[1])
    await asyncio.sleep(SETTLED_S)
    busy = await spent(system, seconds)
    silent = sum(bool(answer.stream.first_delta) and not answer.over.done() for answer in answers)
    if silent != streams:
        raise SystemExit(f"{silent} of {streams} streams are open and said their first delta")
    return idle, busy


def main() -> None:
    """One server, without and with streams."""
    parser = argparse.ArgumentParser(prog="python -m bench.quiet", description=__doc__)
    parser.add_argument("--streams", type=int, default=900, help="open at once (default: 900)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each look (default: 15)")
    add_option(parser)
    options = parser.parse_args()
    room(options.streams)
    settings = {
        "RAYSPOND_SLOTS": str(options.streams + SPARE),
        "RAY_SERVE_HAPROXY_MAXCONN": str(max(4096, options.streams + SPARE)),
    }
    with tempfile.TemporaryDirectory(prefix="rsb-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        with upstream(scratch) as url, rayspond("shared", url, scratch, settings) as system:
            asyncio.run(drive(system.url, Load("warm-up", system.scripted(8), 8, 8, 2.0), None))
            idle, busy = asyncio.run(measure(system, options.streams, options.seconds))
    results = Results("quiet", options.json)
    print(f"| | ms a second, no stream | {options.streams:,} silent ones | us a stream a second |")
    print("|---|---|---|---|")
    for kind in sorted(busy, key=busy.__getitem__, reverse=True):
        each = 1e3 * (busy[kind] - idle.get(kind, 0.0)) / options.streams
        results.add(kind=kind, idle_ms=idle.get(kind, 0.0), busy_ms=busy[kind], us_a_stream=each)
        print(f"| {kind} | {idle.get(kind, 0.0):.0f} | {busy[kind]:.0f} | {each:.0f} |")


if __name__ == "__main__":
    main()
