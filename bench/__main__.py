"""Measure Rayspond, in its isolations, beside a bare Ray Serve echo and installed peers; print one table."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import exclusive, systems
from bench.load import Figures, Load, drive, percentile
from bench.processes import pss_mib
from bench.systems import System
from tests.fakes.script import words


@dataclass(frozen=True, slots=True)
class Row:
    """What one system reached."""

    system: str
    one: Figures
    many: Figures
    flat_out: Figures
    paced: Figures | None
    idle_mib: float


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8, help="length of each load (default: 8)")
    parser.add_argument("--only", help="only systems whose name holds this")
    parser.add_argument(
        "--paced", type=int, default=64, help="paced streams at 50 deltas/s (default: 64; 0: none)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rsb-", ignore_cleanup_errors=True) as folder:
        rows = list(_measure(Path(folder), options.seconds, options.only or "", options.paced))
        print(table(rows))
        if (options.only or "") in "exclusive":
            print(f"\n{exclusive.table(Path(folder))}")


def _measure(scratch: Path, seconds: float, only: str, paced: int) -> Iterator[Row]:
    with systems.upstream(scratch) as url:
        candidates: Sequence[tuple[str, contextlib.AbstractContextManager[System]]] = [
            ("echo", systems.echo(scratch)),
            ("shared", systems.rayspond("shared", url, scratch)),
            ("one process", systems.one_process(url, scratch)),
            ("dedicated", systems.rayspond("dedicated", url, scratch)),
            *(("peer", peer) for peer in systems.peers(url, scratch)),
        ]
        for name, starting in candidates:
            if only in name:
                print(f"{name}: starting ...", flush=True)
                try:
                    with starting as system:
                        yield asyncio.run(_row(system, seconds, paced))
                except (RuntimeError, ExceptionGroup) as error:
                    if name != "peer":
                        raise
                    why = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                    print(f"  left out: {why}")


async def _row(system: System, seconds: float, paced: int) -> Row:
    idle = pss_mib(system.process)
    dedicated = "dedicated" in system.name
    # A dedicated response starts a process: seconds each, so fewer clients say as much.
    many, flat = (4, 4) if dedicated else (32, 16)

    async def run(name: str, clients: int, deltas: int, length: float, interval_ms: float = 0) -> Figures:
        said = "".join(words(deltas)) if system.model == "fake" else None
        load = Load(name, system.scripted(deltas, interval_ms), clients, deltas, length)
        figures = await drive(system.url, load, said)
        print(
            f"  {name}: {figures.streams_per_s:,.1f} streams/s, {figures.deltas_per_s:,.0f} deltas/s, "
            f"p50 {1e3 * percentile(figures.whole, 0.5):.2f} ms, "
            f"p99 {1e3 * percentile(figures.whole, 0.99):.2f} ms",
            flush=True,
        )
        return figures

    await run("warm-up", 2 if dedicated else 8, 4, min(seconds, 2))
    return Row(
        system=system.name,
        one=await run("1 client, 1 delta", 1, 1, seconds),
        many=await run(f"{many} clients, 1 delta", many, 1, seconds),
        flat_out=await run(f"{flat} clients, 100 deltas", flat, 100, seconds),
        paced=(
            await run(f"{paced} streams at 50 deltas/s", paced, 150, 0.5, 20)
            if paced and system.model == "fake" and not dedicated
            else None
        ),
        idle_mib=idle,
    )


def table(rows: Sequence[Row]) -> str:
    """The figures as Markdown, with ratios to the echo of the same run."""
    floor = next((row for row in rows if "echo" in row.system), None)

    def ratio(figures: Callable[[Row], float], row: Row) -> str:
        return f"{figures(row):,.0f}" + (f" ({figures(row) / figures(floor):.2f})" if floor else "")

    lines = [
        f"{psutil.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; "
        "in brackets: the ratio to the echo of this run.",
        "",
        "| | 1 delta, 1 client: p50 / p99 ms | 1 delta: streams/s | first delta p50 / p99 ms "
        "| 100 deltas flat out: deltas/s | paced at 20 ms: gap p50 / p99 ms | idle MiB (PSS) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        paced = (
            f"{1e3 * percentile(row.paced.gaps, 0.5):.1f} / {1e3 * percentile(row.paced.gaps, 0.99):.1f}"
            if row.paced
            else "-"
        )
        lines.append(
            f"| {row.system} "
            f"| {1e3 * percentile(row.one.whole, 0.5):.2f} / {1e3 * percentile(row.one.whole, 0.99):.2f} "
            f"| {ratio(lambda row: row.many.streams_per_s, row)} "
            f"| {1e3 * percentile(row.many.first, 0.5):.1f} / {1e3 * percentile(row.many.first, 0.99):.1f} "
            f"| {ratio(lambda row: row.flat_out.deltas_per_s, row)} "
            f"| {paced} | {row.idle_mib:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
