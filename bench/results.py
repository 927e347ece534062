"""Results as JSON lines, one a row: for `bench.draw`, and for comparing one run with another."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

import orjson

Figure = str | int | float | dict[str, float]

_CORES: Final = os.cpu_count()


class Results:
    """Appends to a file, or to none."""

    def __init__(self, bench: str, path: Path | None) -> None:
        self._bench = bench
        self._path = path

    def add(self, **figures: Figure) -> None:
        """One row, with what else the machine did before it: `load` is the load average of a minute."""
        if self._path is None:
            return
        row = {"bench": self._bench, "cores": _CORES, "load": os.getloadavg()[0], **figures}
        with self._path.open("ab") as lines:
            lines.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def add_option(parser: argparse.ArgumentParser) -> None:
    """`--json FILE`."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the figures to it, a line each")
