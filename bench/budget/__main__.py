"""What each mechanism costs the process that does it, each measured alone: `python -m bench.budget`.

Microseconds of the processor: for a request; for a response of one delta, which is two commits (its creation,
and everything from there to its end); and for one more delta in a commit of its own.  So a stream of n deltas
that are committed one by one costs a request, a response and n - 1 deltas.  All of it is done in this process
by the project's own functions, without Ray and HTTP; the log is SQLite in a temporary folder, NATS a real
nats-server.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import uvloop

from actors.collector import spare_what_stays
from bench.budget import bus, host, replica, sample
from bench.budget.cost import Row
from bench.results import Results, add_option
from tests.integration.nats_server import NatsServer

PROCESSES: Final = ("replica", "host", "supervisor")
PASSES: Final = 5
"""Over everything, because a machine that others use has good and bad seconds."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.budget", description=__doc__)
    add_option(parser)
    options = parser.parse_args()
    results = Results("budget", options.json)
    with (
        tempfile.TemporaryDirectory(prefix="rsb-", ignore_cleanup_errors=True) as folder,
        NatsServer(Path(folder)) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        rows = runner.run(_measure(server.url))
    print(table(rows))
    for row in rows:
        keep(row, results)


async def _measure(nats_url: str) -> list[Row]:
    made = await sample.make()
    spare_what_stays()
    recorded = sum(len(step.events) for commit in made.response for step in commit.steps)
    shown = sum(commit.batch.count for commit in made.response)
    print(f"A response of one delta: {recorded} events, {shown} wire events.\n")
    passes = [
        [*await replica.rows(made), *await host.rows(made), *await bus.rows(made, nats_url)]
        for _ in range(PASSES)
    ]
    rows = [_best(of_one) for of_one in zip(*passes, strict=True)]
    ordered = [row for process in PROCESSES for row in rows if row.process == process]
    return [*ordered, *(_sum(process, rows) for process in PROCESSES)]


def _best(rows: Sequence[Row]) -> Row:
    """What one mechanism cost in its best pass, figure by figure."""
    request, response, delta = (
        min((figure for figure in figures if figure is not None), default=None)
        for figures in zip(*((row.request, row.response, row.delta) for row in rows), strict=True)
    )
    return replace(rows[0], request=request, response=response, delta=delta)


def _sum(process: str, rows: Sequence[Row]) -> Row:
    counted = [row for row in rows if row.process == process and not (row.aside or row.waited)]
    request, response, delta = (
        sum(figure or 0.0 for figure in figures)
        for figures in zip(*((row.request, row.response, row.delta) for row in counted), strict=True)
    )
    return Row(process, "**sum**", request or None, response, delta)


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown; what is in brackets is in no sum."""
    lines = ["| process | mechanism | us a request | us a response | us a delta |", "|---|---|---|---|---|"]
    for row in rows:
        figures = (_told(row, figure) for figure in (row.request, row.response, row.delta))
        lines.append(f"| {row.process} | {row.mechanism} | " + " | ".join(figures) + " |")
    return "\n".join(lines)


def _told(row: Row, us: float | None) -> str:
    if us is None:
        return ""
    if row.waited:
        return f"({us / 1e3:.2f} ms)"
    told = f"{us:,.1f}" if us < 10 else f"{us:,.0f}"
    return f"({told})" if row.aside else told


def keep(row: Row, results: Results) -> None:
    """The row as a result, in microseconds."""
    figures = {"request_us": row.request, "response_us": row.response, "delta_us": row.delta}
    known = {name: figure for name, figure in figures.items() if figure is not None}
    results.add(process=row.process, mechanism=row.mechanism.strip("*"), **known)


if __name__ == "__main__":
    main()
