"""Every goal, and what this machine reaches of it: `make goals`, an hour.

The benches run one after the other, each in a process of its own; what their `--json` writes is read for the
table.  `--only tails` runs one of them again, and `--only none` shows what was measured before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from bench.systems import ECHO, SHARED

OUT: Final = Path(__file__).parent / "out" / "goals.jsonl"

RUNS: Final[dict[str, Sequence[str]]] = {
    "bench": ("--seconds", "10"),
    "tails": (),
    "streams": (),
    "chain": ("--chains", "2"),
    "log_size": ("--events", "10000000"),
    "storage": ("--responses", "1000", "--rounds", "0"),
    "soak": (),
    "public": (),
    "reading": (),
}
"""What is run, and with what."""

Row = dict[str, Any]


class Rows:
    """What the benches wrote; of the same row the last one counts."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def all(self, bench: str, **fields: object) -> list[Row]:
        """Those with these fields.  Raises `LookupError` where there is none."""
        found = [
            row
            for row in self._rows
            if row["bench"] == bench and all(row.get(name) == value for name, value in fields.items())
        ]
        if not found:
            raise LookupError(f"{bench}: {fields}")
        return found

    def one(self, figure: str, bench: str, **fields: object) -> float:
        """A figure of the last of them."""
        return float(self.all(bench, **fields)[-1][figure])

    def loaded(self, figure: str, load: str, system: str = SHARED) -> float:
        """A figure of `make bench`."""
        return self.one(figure, "bench", load=load, system=system)

    def of_the_echo(self, figure: str, load: str) -> float:
        """The same, as a share of what the echo has."""
        return self.loaded(figure, load) / self.loaded(figure, load, ECHO)


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure that is to be at most, or at least, so much."""

    what: str
    limit: float
    reached: Callable[[Rows], float]
    least: bool = False

    def row(self, rows: Rows) -> str:
        """As Markdown."""
        try:
            reached = self.reached(rows)
        except LookupError:
            return f"| {self.what} | {self._asked} | not measured | |"
        times = self.limit / reached if self.least else reached / self.limit
        verdict = "yes" if times <= 1 else f"missed by {times:.2g} x"
        return f"| {self.what} | {self._asked} | {_figure(reached)} | {verdict} |"

    @property
    def _asked(self) -> str:
        return f"{'>=' if self.least else '<='} {_figure(self.limit)}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


STORES: Final = ("SQLite", "Postgres")

LONE, MANY, FLAT_OUT = "1 client, 1 delta", "32 clients, 1 delta", "16 clients, 100 deltas"


def _slowed(figure: str) -> Callable[[Rows], float]:
    """How many times as long with a slow disk."""

    def times(rows: Rows) -> float:
        quick, slow = (rows.one(figure, "tails", system=SHARED, fsync_ms=ms) for ms in (0.0, 5.0))
        return slow / quick

    return times


def _tail(figure: str) -> Callable[[Rows], float]:
    return lambda rows: rows.one(figure, "tails", system=SHARED, fsync_ms=0.0)


def _streams(figure: str, streams: int) -> Callable[[Rows], float]:
    return lambda rows: rows.one(figure, "streams", system=SHARED, streams=streams)


def _last_turn(rows: Rows) -> float:
    """Beyond reading, beside a turn that continues nothing, of the last turn."""
    last = rows.all("chain")[-1]
    return float(last["beyond_ms"] / last["alone_ms"])


def _beside_a_small_log(store: str) -> Callable[[Rows], float]:
    """Of all questions the one that takes most times as long on the large log."""

    def times(rows: Rows) -> float:
        asked = rows.all("log_size", store=store)
        small = min(row["events"] for row in asked)
        ms = {(row["question"], row["events"]): row["ms"] for row in asked}
        return float(max(took / ms[question, small] for (question, _), took in ms.items()))

    return times


def _stored(store: str, figure: str, per_commit: int) -> Callable[[Rows], float]:
    return lambda rows: rows.one(figure, "storage", store=store, per_commit=per_commit)


def _grown(rows: Rows) -> float:
    """MiB of all but NATS, whose stream fills up to its bound, from the first row under load to the last."""
    loaded = [row["mib"] for row in rows.all("soak") if row["responses"]]
    first, last = (sum(mib.values()) - mib.get("NATS", 0.0) for mib in (loaded[0], loaded[-1]))
    return float(last - first)


GOALS: Final = (
    Goal("whole stream of 1 delta, 1 client, p50 ms", 3, lambda rows: rows.loaded("whole_p50_ms", LONE)),
    Goal(
        "streams of 1 delta a second, 32 clients",
        1_000,
        lambda rows: rows.loaded("streams_per_s", MANY),
        least=True,
    ),
    Goal("beside the echo", 0.3, lambda rows: rows.of_the_echo("streams_per_s", MANY), least=True),
    Goal(
        "deltas a second in streams of 100, 16 clients",
        50_000,
        lambda rows: rows.loaded("deltas_per_s", FLAT_OUT),
        least=True,
    ),
    Goal("beside the echo", 0.35, lambda rows: rows.of_the_echo("deltas_per_s", FLAT_OUT), least=True),
    Goal("32 clients: first delta p99, ms", 15, _tail("first_p99_ms")),
    Goal("32 clients: added gap p99, ms", 5, _tail("added_gap_p99_ms")),
    Goal("first delta, 5 ms added to every fsync, times", 2, _slowed("first_p99_ms")),
    Goal("added gap, 5 ms added to every fsync, times", 2, _slowed("added_gap_p99_ms")),
    Goal("256 streams at 50 deltas/s: gap p99, paces", 2, _streams("gap_p99", 256)),
    Goal("256 streams at 50 deltas/s: first delta p99, ms", 250, _streams("first_p99_ms", 256)),
    Goal("1,000 streams at 5 deltas/s: gap p99, paces", 2, _streams("gap_p99", 1_000)),
    Goal("5,000 streams at 1 delta/s: gap p99, paces", 2, _streams("gap_p99", 5_000)),
    Goal("turn 191 of a chain beside one that continues nothing", 2, _last_turn),
    *(
        Goal(
            f"{store}, 10,000,000 events beside 100,000: the worst question, times",
            1.5,
            _beside_a_small_log(store),
        )
        for store in STORES
    ),
    *(
        Goal(
            f"{store}, {deltas} deltas a commit: bytes a delta, {figure}",
            limit,
            _stored(store, figure, deltas),
        )
        for figure, limit in (("running", 60), ("sealed", 15))
        for store in STORES
        for deltas in (4, 20)
    ),
    Goal(
        "idle memory beyond the bare stack, MiB",
        200,
        lambda rows: rows.loaded("idle_mib", MANY) - rows.loaded("idle_mib", MANY, ECHO),
    ),
    Goal("an open paced stream of 1,000, KiB", 100, _streams("kib_a_stream", 1_000)),
    Goal("growth from response 10,000 to 50,000, all but NATS, MiB", 20, _grown),
    Goal("commit to subscriber p99, ms", 50, lambda rows: rows.one("p99_ms", "public", what="core NATS")),
    Goal(
        "catch-up, events a second",
        20_000,
        lambda rows: rows.one("events_per_s", "public", what="catch-up"),
        least=True,
    ),
    Goal(
        "exclusive beside shared, p50",
        1.2,
        lambda rows: rows.one("beside_shared", "exclusive", isolation="exclusive"),
    ),
    Goal(
        "GET of a finished response beside the echo, 16 clients",
        0.5,
        lambda rows: rows.one("ratio", "reading", clients=16),
        least=True,
    ),
)


def main() -> None:
    """Exit with 1 where a bench ended with an error; what it did not write is not measured."""
    parser = argparse.ArgumentParser(prog="make goals", description=__doc__)
    parser.add_argument("--only", choices=[*RUNS, "none"], help="run this one only, beside what is known")
    only = parser.parse_args().only
    OUT.parent.mkdir(exist_ok=True)
    if only is None:
        OUT.unlink(missing_ok=True)
    failed = [name for name in RUNS if only in (None, name) and not _ran(name)]
    rows = OUT.read_bytes().splitlines() if OUT.exists() else []
    print(table(Rows([orjson.loads(row) for row in rows])))
    if failed:
        sys.exit(f"These ended with an error: {', '.join(failed)}")


def table(rows: Rows) -> str:
    """All goals as Markdown."""
    return "\n".join(
        ["| | goal | here | reached |", "|---|---|---|---|", *(goal.row(rows) for goal in GOALS)]
    )


def _ran(name: str) -> bool:
    print(f"\n{name}:", flush=True)
    module = name if name == "bench" else f"bench.{name}"
    command = [sys.executable, "-m", module, *RUNS[name], "--json", str(OUT)]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    main()
