"""Pictures of results: `python -m bench.draw FILE [--into docs]` reads what `--json` of the benches wrote.

Of each row the last run counts.  The pictures are plain SVG, for light and dark.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import orjson

from bench.systems import SHARED

WIDTH: Final = 640
HEIGHT: Final = 300
LEFT: Final = 70
RIGHT: Final = 150
"""Room for the names of lines at their ends."""
TOP: Final = 40
BOTTOM: Final = 50
COLOURS: Final = ("#2a78c8", "#d9722b", "#3d9a50", "#a34fb0", "#b8860b")
"""Read on white and on black."""
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#333}.title{font-weight:bold}.axis{stroke:#999}.goal{stroke:#999;"
    "stroke-dasharray:4 4}@media(prefers-color-scheme:dark){text{fill:#ccc}}"
)

_ASKED: Final = ("create, append", "read", "resume", "list")
"""Of `bench.log_size`, what is drawn."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """Points of one thing, by growing x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the x of all points, at distances by logarithm or, `linear`, by themselves."""

    title: str
    below: str
    """What x is."""
    lines: Sequence[Line]
    goal: float | None = None
    linear: bool = False
    """Marks at distances by themselves: what grows linearly is straight."""

    def svg(self) -> str:
        """The picture."""
        marks = sorted({x for line in self.lines for x, _ in line.points})
        top = max([y for line in self.lines for _, y in line.points] + [self.goal or 0.0]) * 1.1 or 1.0
        place = float if self.linear else math.log
        if self.linear:
            step = 2 ** round(math.log2(marks[-1] / 5))
            marks = [step * number for number in range(math.ceil(marks[-1] / step) + 1)]
        low, wide = place(marks[0]), place(marks[-1]) - place(marks[0])

        def across(x: float) -> float:
            share = (place(x) - low) / wide if wide else 0.5
            return LEFT + share * (WIDTH - LEFT - RIGHT)

        def up(y: float) -> float:
            return HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM)

        parts = [_text(LEFT, 20, self.title, kind="title")]
        parts += [_text(across(x), HEIGHT - BOTTOM + 18, _short(x), "middle") for x in marks]
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, self.below, "middle"))
        for share in (0.0, 0.5, 1.0):
            value = top / 1.1 * share
            parts.append(_text(LEFT - 8, up(value) + 4, _short(value), "end"))
            parts.append(_rule(up(value), "axis"))
        if self.goal is not None:
            parts.append(_rule(up(self.goal), "goal"))
            parts.append(_text(WIDTH - RIGHT + 8, up(self.goal) + 4, f"goal: {_short(self.goal)}"))
        for line, colour in zip(self.lines, COLOURS, strict=False):
            places = [(across(x), up(y)) for x, y in line.points]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        ends = ((up(line.points[-1][1]), line.name) for line in self.lines)
        parts += [_text(WIDTH - RIGHT + 8, at, name) for at, name in _apart(ends_of=list(ends))]
        body = "\n".join(parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n'
            f"<title>{escape(self.title)}</title>\n<style>{_STYLE}</style>\n{body}\n</svg>\n"
        )


def _apart(ends_of: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Names beside the ends of their lines, none on another."""
    placed: list[tuple[float, str]] = []
    for at, name in sorted(ends_of):
        placed.append((max(at + 4, placed[-1][0] + 14) if placed else at + 4, name))
    return placed


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _rule(y: float, kind: str) -> str:
    return f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="{kind}"/>'


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 or value == int(value) else f"{value:.1f}"


def charts(rows: Sequence[Row]) -> dict[str, Chart]:
    """The pictures that these rows are enough for, by their files' names."""
    streams = [row for row in rows if row["bench"] == "streams" and row["system"] == SHARED]
    hosts = [row for row in rows if row["bench"] == "hosts"]
    chain = [row for row in rows if row["bench"] == "chain"]
    items = [row for row in rows if row["bench"] == "items"]

    def paced(y: str) -> list[Line]:
        return _lines(streams, lambda row: f"{row['per_s']:g} deltas/s each", "streams", y)

    def stores(y: str) -> list[Line]:
        return _lines(hosts, lambda row: str(row["store"]), "hosts", y)

    def log(store: str) -> list[Line]:
        asked = [row for row in rows if row["bench"] == "log_size" and row["store"] == store]
        asked = [row for row in asked if row["question"] in _ASKED]
        return _lines(asked, lambda row: str(row["question"]), "events", "ms")

    turns = [
        line
        for name, y in (
            ("first delta", "first_ms"),
            ("its CPU", "cpu_ms"),
            ("CPU beyond reading", "beyond_ms"),
        )
        for line in _lines(chain, partial(_always, name), "turn", y)
    ]
    sizes = _lines(items, lambda row: str(row["where"]), "kib", "cpu_ms")
    found = {
        "streams-gaps": Chart("p99 gap between deltas, in paces", "open streams", paced("gap_p99"), 2.0),
        "streams-first": Chart("p99 of the first delta, ms", "open streams", paced("first_p99_ms"), 250.0),
        "streams-memory": Chart("KiB an open stream", "open streams", paced("kib_a_stream"), 100.0),
        "hosts-streams": Chart("streams of 1 delta a second", "hosts", stores("streams_per_s")),
        "hosts-deltas": Chart("deltas a second, 100 in a stream", "hosts", stores("deltas_per_s")),
        "chain": Chart("ms until the first delta of a turn", "turn of a chain", turns),
        "log-sqlite": Chart("ms of a question to SQLite", "events in the log", log("SQLite")),
        "log-postgres": Chart("ms of a question to Postgres", "events in the log", log("Postgres")),
        "items": Chart("CPU of a response, ms", "KiB of text", sizes, linear=True),
    }
    return {name: chart for name, chart in found.items() if chart.lines}


def _lines(rows: Sequence[Row], name: Callable[[Row], str], x: str, y: str) -> list[Line]:
    """A line for each name; of rows with the same name and x the last counts."""
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        found.setdefault(name(row), {})[row[x]] = row[y]
    return [Line(of, sorted(points.items())) for of, points in found.items()]


def _always(name: str, _row: Row) -> str:
    return name


def main() -> None:
    """Write what there are figures for."""
    parser = argparse.ArgumentParser(prog="python -m bench.draw", description=__doc__)
    parser.add_argument("results", type=Path, help="what --json wrote")
    parser.add_argument(
        "--into", type=Path, default=Path("docs"), help="folder of the pictures (default: docs)"
    )
    options = parser.parse_args()
    rows = [orjson.loads(line) for line in options.results.read_bytes().splitlines()]
    for name, chart in charts(rows).items():
        path = options.into / f"{name}.svg"
        path.write_text(chart.svg())
        print(path)


if __name__ == "__main__":
    main()
