"""Measure Rayspond, in its isolations, beside a bare Ray Serve echo and installed peers; print one table.

What each needs of memory is seen while it is alone; then all stand beside each other and take turns.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import psutil

from bench import exclusive, peers, systems
from bench.load import Load, percentile
from bench.processes import pss_mib
from bench.results import Results, add_option
from bench.systems import System
from bench.turns import Reached, in_turns

WARM_UP: Final = Load("warm-up", "", clients=8, deltas=4, seconds=2)
LONE: Final = Load("1 client, 1 delta", "", clients=1, deltas=1, seconds=8)
MANY: Final = Load("32 clients, 1 delta", "", clients=32, deltas=1, seconds=8)
FLAT_OUT: Final = Load("16 clients, 100 deltas", "", clients=16, deltas=100, seconds=8)
PACED: Final = Load(
    "64 clients, 50 deltas/s", "", clients=64, deltas=150, seconds=60, most=64, interval_ms=20
)
DEDICATED_CLIENTS: Final = 4
"""A dedicated response starts a process, which takes seconds: fewer clients say as much."""
OURS: Final = ("echo", "shared", "one process")
"""Who fails of these ends the bench; a peer is left out."""


@dataclass(slots=True)
class Row:
    """What one system reached under each load that was asked of it."""

    system: System
    idle_mib: float
    reached: dict[str, Reached] = field(default_factory=dict)
    lasting: bool = True
    """Whether its processes are there after its responses, and what they used of processors can be told."""

    def keep(self, results: Results) -> None:
        """A line for each load."""
        for load, reached in self.reached.items():
            results.add(system=self.system.name, load=load, idle_mib=self.idle_mib, **reached.told())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8, help="length of each load (default: 8)")
    parser.add_argument("--only", default="", help="only systems whose name holds this")
    add_option(parser)
    options = parser.parse_args()
    results = Results("bench", options.json)
    loads = [WARM_UP, *(replace(load, seconds=options.seconds) for load in (LONE, MANY, FLAT_OUT)), PACED]
    with tempfile.TemporaryDirectory(prefix="rsb-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        with systems.upstream(scratch) as url:
            rows = beside_each_other(url, scratch, loads, options.only)
            if options.only in "dedicated":
                rows.append(dedicated(url, scratch, loads[:-1]))
        print(table(rows))
        for row in rows:
            row.keep(results)
        if options.only in "exclusive":
            print(f"\n{exclusive.table(scratch, Results('exclusive', options.json))}")


def beside_each_other(url: str, scratch: Path, loads: Sequence[Load], only: str) -> list[Row]:
    """The rows of those that take turns."""
    rows: list[Row] = []
    with ExitStack() as stack:
        idle = dict(_idle_mib(url, scratch / "alone", only))
        for name, starting in _standing(url, scratch / "beside", only):
            if name in idle:
                rows.append(Row(stack.enter_context(starting), idle[name]))
        take_turns(rows, loads)
    return rows


def dedicated(url: str, scratch: Path, loads: Sequence[Load]) -> Row:
    """Its row; it starts a process for every response, so there is nothing to compare."""
    print("dedicated: starting ...", flush=True)
    with systems.rayspond("dedicated", url, scratch) as system:
        row = Row(system, pss_mib(system.process), lasting=False)
        take_turns([row], [replace(load, clients=min(load.clients, DEDICATED_CLIENTS)) for load in loads])
    return row


def take_turns(rows: Sequence[Row], loads: Sequence[Load]) -> None:
    """Fill the rows.  A peer that fails has no further loads."""
    rows = list(rows)
    for load in loads:
        print(f"{load.name}:", flush=True)
        asked = {row.system: row for row in rows}
        reached = in_turns([*asked], load)
        for system, figures in reached.items():
            asked[system].reached[load.name] = figures
            print(f"  {system.name}: {figures}", flush=True)
        rows = [row for row in rows if row.system in reached]


def _standing(url: str, scratch: Path, only: str) -> Iterator[tuple[str, AbstractContextManager[System]]]:
    scratch.mkdir()
    for name, starting in (
        (OURS[0], systems.echo(scratch)),
        (OURS[1], systems.rayspond("shared", url, scratch)),
        (OURS[2], systems.one_process(url, scratch)),
        *peers.installed(url, scratch),
    ):
        if only in name:
            print(f"{name}: starting ...", flush=True)
            yield name, starting


def _idle_mib(url: str, scratch: Path, only: str) -> Iterator[tuple[str, float]]:
    """Of each while it is alone: what it shares with another counts half of each."""
    for name, starting in _standing(url, scratch, only):
        try:
            with starting as system:
                yield name, pss_mib(system.process)
        except RuntimeError as failed:
            if name in OURS:
                raise
            print(f"  left out: {failed}")


def table(rows: Sequence[Row]) -> str:
    """The figures as Markdown, with ratios to the echo of the same run."""
    floor = next((row for row in rows if not row.system.asks), None)
    lines = [
        f"{psutil.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; in brackets: the ratio to the echo of this run.",
        "",
        "| | 1 client: p50 / p99 ms "
        "| 32 clients: streams/s | processor, ms a stream | first delta p50 / p99 ms "
        "| 16 clients: deltas/s | processor, us a delta "
        "| paced at 20 ms: gap p50 / p99 ms | idle MiB (PSS) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.system.name,
            _times(row, LONE, lambda reached: reached.figures.whole),
            _rate(row, MANY, floor, lambda reached: reached.figures.streams_per_s),
            _cost(row, MANY, lambda reached: reached.ms_a_stream),
            _times(row, MANY, lambda reached: reached.figures.first),
            _rate(row, FLAT_OUT, floor, lambda reached: reached.figures.deltas_per_s),
            _cost(row, FLAT_OUT, lambda reached: reached.us_a_delta),
            _times(row, PACED, lambda reached: reached.figures.gaps),
            f"{row.idle_mib:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _times(row: Row, load: Load, of: Callable[[Reached], Sequence[float]]) -> str:
    reached = row.reached.get(load.name)
    if reached is None:
        return "-"
    return " / ".join(f"{1e3 * percentile(of(reached), share):,.1f}" for share in (0.5, 0.99))


def _rate(row: Row, load: Load, floor: Row | None, of: Callable[[Reached], float]) -> str:
    reached = row.reached.get(load.name)
    if reached is None:
        return "-"
    beside = f" ({of(reached) / of(floor.reached[load.name]):.2f})" if floor else ""
    return f"{of(reached):,.0f}{beside}"


def _cost(row: Row, load: Load, of: Callable[[Reached], float]) -> str:
    reached = row.reached.get(load.name)
    return f"{of(reached):,.2f}" if reached and row.lasting else "-"


if __name__ == "__main__":
    main()
