"""Whether memory stays flat over many short responses: `python -m bench.soak [--responses 50000]`.

One `rayspond serve`, streams of one delta, each checked; after every `--every` of them the memory (PSS) of
each kind of process, once the server has been left alone for a moment.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Final

from bench.load import Load, drive
from bench.processes import KINDS, REST, pss_mib_by_kind
from bench.results import Results, add_option
from bench.systems import System, rayspond, upstream
from tests.fakes.script import words

SHOWN: Final = (*KINDS.values(), REST)
PART_MAX_S: Final = 3600.0
"""Seconds after which no stream of a row is begun any more."""
SETTLED_S: Final = 3.0
"""Before memory is looked at, for what is still on its way."""
WARM_UP: Final = 500
"""Streams before the first row: what is loaded once is loaded by these."""


async def measure(system: System, responses: int, every: int, clients: int, results: Results) -> None:
    """Print a row before the first response, and one after every so many.  Raises `RuntimeError`."""
    await _part(system, min(WARM_UP, every), clients)
    await _tell(system, 0, 0.0, results)
    done = 0
    while done < responses:
        part = min(every, responses - done)
        per_s = await _part(system, part, clients)
        done += part
        await _tell(system, done, per_s, results)


async def _part(system: System, streams: int, clients: int) -> float:
    """Whole streams a second."""
    load = Load("soak", system.scripted(1), clients, 1, PART_MAX_S, most=streams)
    figures = await drive(system.url, load, "".join(words(1)))
    if figures.streams < streams:
        raise RuntimeError(f"{figures.streams} of {streams} streams in {PART_MAX_S:.0f} s")
    return figures.streams_per_s


async def _tell(system: System, done: int, per_s: float, results: Results) -> None:
    await asyncio.sleep(SETTLED_S)
    mib = await asyncio.to_thread(pss_mib_by_kind, system.process)
    total = sum(mib.values())
    kinds = " | ".join(f"{mib.get(kind, 0.0):,.1f}" for kind in SHOWN)
    print(f"| {done:,} | {kinds} | {total:,.1f} | {f'{per_s:,.0f}' if done else '-'} |", flush=True)
    results.add(responses=done, mib=mib, mib_in_all=total, streams_per_s=per_s)


def main() -> None:
    """One server for all rows."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--responses", type=int, default=50_000, help="in all (default: 50000)")
    parser.add_argument("--every", type=int, default=10_000, help="of a row (default: 10000)")
    parser.add_argument("--clients", type=int, default=16, help="at once (default: 16)")
    add_option(parser)
    options = parser.parse_args()
    results = Results("soak", options.json)
    with tempfile.TemporaryDirectory(prefix="rsb-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        with upstream(scratch) as url, rayspond("shared", url, scratch) as system:
            print(f"| responses | {' | '.join(f'{kind}, MiB' for kind in SHOWN)} | in all | streams/s |")
            print("|---" * (len(SHOWN) + 3) + "|", flush=True)
            asyncio.run(measure(system, options.responses, options.every, options.clients, results))


if __name__ == "__main__":
    main()
