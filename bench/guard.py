"""Fails where Rayspond became slow: by ratios to the bare echo, in turns with it, with generous margins.

`python -m bench.guard` takes about a minute.  What a change costs in detail is for `make bench` to tell.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from bench import systems
from bench.load import Load
from bench.turns import SLICE_S, in_turns

LEAST: Final = (
    (Load("streams/s", "", clients=32, deltas=1, seconds=SLICE_S), 0.06),
    (Load("deltas/s", "", clients=16, deltas=100, seconds=SLICE_S), 0.12),
)
"""Of what the echo does; about a third of what was seen where this was written."""
ROUNDS: Final = 4
"""The best of so many turns counts: whatever else runs on the machine makes figures worse, never better."""


def main() -> None:
    """Exit with 1 where a ratio is below its least."""
    slow = False
    with tempfile.TemporaryDirectory(prefix="rsg-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        with (
            systems.upstream(scratch) as url,
            systems.echo(scratch) as echo,
            systems.rayspond("shared", url, scratch) as rayspond,
        ):
            in_turns([echo, rayspond], Load("warm-up", "", clients=8, deltas=4, seconds=2))
            for load, least in LEAST:
                rounds = [in_turns([echo, rayspond], load) for _ in range(ROUNDS)]
                floor, ours = (
                    max(reached[system].figures.deltas_per_s for reached in rounds)
                    for system in (echo, rayspond)
                )
                slow |= ours < least * floor
                print(f"{ours / floor:.2f} of the bare echo's {load.name}; at least {least:.2f} is asked for")
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
