"""SQLite beside Postgres, with 1, 2 and 4 hosts: `python -m bench.hosts [--hosts 1,2,4] [--seconds 4]`.

Postgres comes from the development dependencies and runs on this machine as everything does, so more hosts
show what sharing the work costs rather than what more machines would bring.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.load import Figures, Load, drive, percentile
from bench.results import Results, add_option
from bench.systems import System, rayspond, upstream
from tests.fakes.script import words
from tests.postgres_server import PostgresServer


async def measure(system: System, seconds: float) -> tuple[Figures, Figures]:
    """32 clients with one delta, 16 with 100."""

    async def run(clients: int, deltas: int, length: float) -> Figures:
        load = Load("hosts", system.scripted(deltas), clients, deltas, length)
        return await drive(system.url, load, "".join(words(deltas)))

    await run(32, 4, min(seconds, 2.0))
    return await run(32, 1, seconds), await run(16, 100, seconds)


@contextlib.contextmanager
def _log_url(store: str, database: PostgresServer, hosts: int) -> Iterator[dict[str, str]]:
    """The setting that names the log."""
    if store == "SQLite":
        yield {}
        return
    name = f"hosts_{hosts}"
    yield {"RAYSPOND_LOG_URL": database.make(name)}
    database.drop(name)


def main() -> None:
    """A server for each row."""
    parser = argparse.ArgumentParser(prog="python -m bench.hosts", description=__doc__)
    parser.add_argument("--hosts", default="1,2,4", help="how many, one after the other (default: 1,2,4)")
    parser.add_argument("--stores", default="SQLite,Postgres", help="on which (default: SQLite,Postgres)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load (default: 4)")
    add_option(parser)
    options = parser.parse_args()
    results = Results("hosts", options.json)
    print("| log | hosts | 1 delta: streams/s | p50 / p99 ms | 100 deltas: deltas/s |")
    print("|---" * 5 + "|", flush=True)
    database = PostgresServer()
    try:
        database.start()
        for store in options.stores.split(","):
            for hosts in map(int, options.hosts.split(",")):
                short, long = _row(database, store, hosts, options.seconds)
                p50, p99 = (1e3 * percentile(short.whole, share) for share in (0.5, 0.99))
                print(
                    f"| {store} | {hosts} | {short.streams_per_s:,.0f} | {p50:,.1f} / {p99:,.1f}"
                    f" | {long.deltas_per_s:,.0f} |",
                    flush=True,
                )
                results.add(
                    store=store, hosts=hosts, streams_per_s=short.streams_per_s, p50_ms=p50, p99_ms=p99,
                    deltas_per_s=long.deltas_per_s,
                )  # fmt: skip
    finally:
        database.remove()


def _row(database: PostgresServer, store: str, hosts: int, seconds: float) -> tuple[Figures, Figures]:
    with tempfile.TemporaryDirectory(prefix="rsb-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        with (
            _log_url(store, database, hosts) as log,
            upstream(scratch) as url,
            rayspond("shared", url, scratch, {"RAYSPOND_HOSTS": str(hosts), **log}) as system,
        ):
            return asyncio.run(measure(system, seconds))


if __name__ == "__main__":
    main()
