"""The slowest of many, and what a slow disk does to them: `python -m bench.tails [--fsync-ms 5]`.

Clients read streams of deltas at a pace, first with the disk as it is, then with a pause before every fsync
(`bench/slow_fsync.c`, compiled with `cc`).  The added gap is what lies between two deltas beyond their pace.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from bench.load import Figures, Load, drive, percentile
from bench.results import Results, add_option
from bench.systems import ECHO, ONE_PROCESS, SHARED, System, echo, one_process, rayspond, upstream

SOURCE: Final = Path(__file__).with_name("slow_fsync.c")
DELTAS: Final = 20
PACE_MS: Final = 20.0
WARM_UP_S: Final = 2.0

Tails = tuple[float, float, float]
"""First delta p50 and p99, and added gap p99, ms."""


def slow_fsync(scratch: Path, ms: float) -> dict[str, str]:
    """The environment in which every fsync takes so much longer.  Raises `SystemExit` without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("a slow fsync needs a C compiler, and there is no `cc`: install gcc or clang")
    library = scratch / "slow_fsync.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    # Ray keeps what is preloaded from its workers, and so from hosts, unless it is told otherwise.
    ray = {"RAY_LD_PRELOAD_ON_WORKERS": "1"}
    return {"LD_PRELOAD": str(library), "BENCH_FSYNC_MS": f"{ms:g}", **ray}


async def measure(system: System, clients: int, seconds: float) -> Figures:
    """Paced streams, after a moment of the same."""
    for length in (min(WARM_UP_S, seconds), seconds):
        load = Load("tails", system.scripted(DELTAS, PACE_MS), clients, DELTAS, length)
        figures = await drive(system.url, load, system.said(DELTAS))
    return figures


def tails(figures: Figures) -> Tails:
    """What is told of them."""
    first50, first99 = (1e3 * percentile(figures.first, share) for share in (0.5, 0.99))
    return first50, first99, 1e3 * percentile(figures.gaps, 0.99) - PACE_MS


def _run(name: str, clients: int, seconds: float, fsync_ms: float) -> Tails:
    with tempfile.TemporaryDirectory(prefix="rsb-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        settings: Mapping[str, str] = slow_fsync(scratch, fsync_ms) if fsync_ms else {}
        with upstream(scratch) as url:
            starting: dict[str, Callable[[], AbstractContextManager[System]]] = {
                SHARED: lambda: rayspond("shared", url, scratch, settings),
                ONE_PROCESS: lambda: one_process(url, scratch, settings),
                ECHO: lambda: echo(scratch),
            }
            with starting[name]() as system:
                return tails(asyncio.run(measure(system, clients, seconds)))


def main() -> None:
    """A server for each row."""
    parser = argparse.ArgumentParser(prog="python -m bench.tails", description=__doc__)
    parser.add_argument("--clients", type=int, default=32, help="at once (default: 32)")
    parser.add_argument("--fsync-ms", type=float, default=5.0, help="pause before an fsync (default: 5)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load (default: 8)")
    add_option(parser)
    options = parser.parse_args()
    results = Results("tails", options.json)
    print("| | fsync | first delta p50 / p99, ms | added gap p99, ms |")
    print("|---" * 4 + "|", flush=True)
    for name in (SHARED, ONE_PROCESS, ECHO):
        rows: list[Tails] = []
        # The echo stores nothing.
        for fsync_ms in (0.0, options.fsync_ms) if name != ECHO else (0.0,):
            seen = _run(name, options.clients, options.seconds, fsync_ms)
            rows.append(seen)
            pause = f"{fsync_ms:g} ms added" if fsync_ms else "as it is"
            print(f"| {name} | {pause} | {seen[0]:.1f} / {seen[1]:.1f} | {seen[2]:.1f} |", flush=True)
            results.add(
                system=name, fsync_ms=fsync_ms, clients=options.clients,
                first_p50_ms=seen[0], first_p99_ms=seen[1], added_gap_p99_ms=seen[2],
            )  # fmt: skip
        if len(rows) == 2:
            p50, p99, gap = (_ratio(slow, quick) for quick, slow in zip(*rows, strict=True))
            print(f"| {name} | ratio | {p50} / {p99} | {gap} |", flush=True)


def _ratio(slow: float, quick: float) -> str:
    return f"{slow / quick:.2f}" if quick > 0 else "-"


if __name__ == "__main__":
    main()
