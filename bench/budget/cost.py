"""What a call costs in processor time, at its best, how long it is waited for, and the rows that say so."""

from __future__ import annotations

import asyncio
import statistics
import time
import timeit
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

ROUNDS: Final = 4
"""The best of so many counts: other work on the machine, and cold caches, make them worse, never better."""
ROUND_S: Final = 0.02

Clock = Callable[[], float]
"""Seconds of processor time that a process or a thread has used."""
Job = Coroutine[Any, Any, object]


@dataclass(frozen=True, slots=True)
class Row:
    """What one mechanism costs, in microseconds; nothing where it has no part."""

    process: str
    mechanism: str
    request: float | None = None
    response: float | None = None
    delta: float | None = None
    aside: bool = False
    """Not in its process's sum: it is part of another row, or another way to do the same."""
    waited: bool = False
    """Time that passes, not time of the processor."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one job, in microseconds."""

    cpu: float
    """Of the processor, at best."""
    wait: float
    """From its beginning to its end, as a rule."""


def cpu_of(call: Callable[[], object]) -> float:
    """Microseconds of the processor that a call takes."""
    timer = timeit.Timer(call, timer=time.thread_time)
    number = max(1, int(ROUND_S / min(timer.repeat(3, 1))))
    return min(timer.repeat(ROUNDS, number)) / number * 1e6


async def cost_of(
    jobs: Callable[[], Sequence[Job]], at_once: int = 1, clock: Clock = time.process_time
) -> Cost:
    """What a job costs of those that `jobs` makes for each round, so many of them side by side.

    `clock` says whose processor time counts: by default that of this process, with all its threads.
    """
    cpu: list[float] = []
    wait: list[float] = []
    for _ in range(ROUNDS):
        made = jobs()
        groups = [made[at : at + at_once] for at in range(0, len(made), at_once)]
        used, began = clock(), time.perf_counter()
        for group in groups:
            if at_once == 1:
                await group[0]
            else:
                await asyncio.gather(*group)
        cpu.append((clock() - used) / len(made))
        wait.append((time.perf_counter() - began) / len(groups))
    return Cost(min(cpu) * 1e6, statistics.median(wait) * 1e6)
