"""Systems that stand beside each other and take turns under the same load.

A machine that others share is up to twice as fast a minute later.  In slices of two seconds, in an order
that chance gives, all systems see the same of that: their ratios hold where their figures do not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.load import Figures, Load, drive, percentile
from bench.processes import cpu_seconds
from bench.results import Figure
from bench.systems import System

SLICE_S: Final = 2.0
"""Several streams long, so that what is begun last and still read counts little."""


@dataclass(frozen=True, slots=True)
class Reached:
    """What one system reached under one load, over all its turns."""

    figures: Figures
    cpu_s: float
    """What its processes used of the processors meanwhile, but for those that ended with their responses."""

    def __str__(self) -> str:
        """What is said of it while the bench goes on."""
        figures = self.figures
        p50, p99 = (1e3 * percentile(figures.whole, share) for share in (0.5, 0.99))
        return (
            f"{figures.streams_per_s:,.1f} streams/s, {figures.deltas_per_s:,.0f} deltas/s, "
            f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"
        )

    def told(self) -> dict[str, Figure]:
        """What is kept of it: rates a second, times in milliseconds."""
        figures = self.figures
        times = {"whole": figures.whole, "first": figures.first, "gap": figures.gaps}
        return {
            "streams_per_s": figures.streams_per_s,
            "deltas_per_s": figures.deltas_per_s,
            "cpu_ms_a_stream": self.ms_a_stream,
            "cpu_us_a_delta": self.us_a_delta,
            **{f"{name}_p50_ms": 1e3 * percentile(seen, 0.5) for name, seen in times.items()},
            **{f"{name}_p99_ms": 1e3 * percentile(seen, 0.99) for name, seen in times.items()},
        }

    @property
    def ms_a_stream(self) -> float:
        """Milliseconds of processor a stream."""
        return 1e3 * self.cpu_s / self.figures.streams

    @property
    def us_a_delta(self) -> float:
        """Microseconds of processor a delta."""
        return 1e6 * self.cpu_s / self.figures.deltas

    def __add__(self, other: Reached) -> Reached:
        """Both together."""
        return Reached(self.figures + other.figures, self.cpu_s + other.cpu_s)


async def turn(system: System, load: Load) -> Reached:
    """One turn of one system, with its own model.  Raises what its clients raise, as a group."""
    asked = replace(load, model=system.scripted(load.deltas, load.interval_ms))
    before = _cpu_s(system)
    figures = await drive(system.url, asked, system.said(load.deltas))
    return Reached(figures, _cpu_s(system) - before)


def in_turns(systems: Sequence[System], load: Load) -> dict[System, Reached]:
    """A load for each system, in as many slices as make up its seconds; a number of streams is one slice.

    A peer that fails is told and left out; what others raise ends it.
    """
    chance = random.Random(0)
    slices = 1 if load.most else max(1, round(load.seconds / SLICE_S))
    slice_ = replace(load, seconds=load.seconds / slices)
    reached: dict[System, Reached] = {}
    standing = list(systems)
    for _ in range(slices):
        for system in chance.sample(standing, len(standing)):
            try:
                now = asyncio.run(turn(system, slice_))
            except ExceptionGroup as failed:
                if not system.peer:
                    raise
                print(f"  {system.name}: left out, {failed.exceptions[0]}", flush=True)
                standing.remove(system)
                continue
            reached[system] = reached[system] + now if system in reached else now
    return {system: reached[system] for system in standing}


def _cpu_s(system: System) -> float:
    return sum(cpu_seconds(system.process).values())
