"""One seed: a safety phase in which things go wrong, a liveness phase in which nothing does, a verdict."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from random import Random
from typing import Any, Final

from actors.config import ClusterConfig
from actors.hosts import HostDied
from eventstore.errors import EventStoreError
from runtime.response.items import is_response_id
from runtime.response.standing import RUNNING, STORED
from tests.simulator.chance import simulated_machine
from tests.simulator.clients import Client
from tests.simulator.loop import Endless, SimulatedLoop, current_process, run
from tests.simulator.machines import World
from tests.simulator.nemesis import Nemesis
from tests.simulator.oracle import digest_of, judge
from tests.simulator.weather import Weather

RESUMES: Final = ("prefix", "prompt", "repeat", "fail")
LIVENESS_SECONDS: Final = 120.0
"""Virtual seconds after the last fault within which everything that was accepted must have ended."""
TRACE_MAX: Final = 20_000
SEALED_SOON_SECONDS: Final = 3.0
NEVER: Final = inf


@dataclass
class Outcome:
    """What became of a seed."""

    seed: int
    problems: list[str] = field(default_factory=list)
    digest: str = ""
    records: int = 0
    responses: int = 0
    sealed: int = 0
    """Responses whose events are compressed."""
    seconds: float = 0.0
    """Virtual."""
    trace: list[str] = field(default_factory=list)


def simulate(seed: int, *, size: int = 1) -> Outcome:
    """Run a seed.  `size` multiplies the clients and the time in which things go wrong."""
    outcome = Outcome(seed)
    loop = SimulatedLoop(Random(f"{seed}/order"))
    loop.set_exception_handler(lambda _, context: _note(outcome, context))
    with simulated_machine(str(seed), loop), _tracing(outcome, loop):
        try:
            run(_simulate(seed, size, outcome), loop)
        except Endless as reason:
            outcome.problems.append(f"it does not end: {reason}")
        except BaseExceptionGroup as group:
            outcome.problems += [f"{type(error).__name__}: {error}" for error in group.exceptions]
    return outcome


async def _simulate(seed: int, size: int, outcome: Outcome) -> None:
    chance = Random(f"{seed}/clients")
    weather = Weather(Random(f"{seed}/weather"))
    world = World(replace(_config(chance), seal_after=_seal_after(seed)), weather)
    nemesis = Nemesis(world)
    if weather.chance.random() < 0.8:
        await asyncio.sleep(2)  # Mostly things go wrong once all is up.
    weather.change()
    clients = [Client(world, chance, RESUMES) for _ in range(chance.randint(1, 4) * size)]
    living = [asyncio.create_task(client.live(chance.randint(1, 3))) for client in clients]
    await nemesis.rage(chance.uniform(2, 8) * size)
    nemesis.make_peace()
    try:
        async with asyncio.timeout(LIVENESS_SECONDS):
            await asyncio.gather(*living)
            while await _unfinished(world):  # noqa: ASYNC110  (what is waited for sets no event)
                await asyncio.sleep(0.2)
    except TimeoutError:
        outcome.problems.append(f"not over {LIVENESS_SECONDS:g} s after the last fault")
    await asyncio.sleep(3)  # What is over is told to subscribers, and hosts count their slots.
    outcome.problems += await judge(world, clients)
    outcome.digest = digest_of(world)
    outcome.records = len(world.database.log._records)
    outcome.responses = sum(is_response_id(stream) for stream in world.database.records)
    outcome.sealed = len(await world.database.log.heads(sealed=True, limit=outcome.records))
    outcome.seconds = world.loop.time()


def _config(chance: Random) -> ClusterConfig:
    return ClusterConfig(
        log_url="sqlite:///unused",
        nats_url="unused",
        hosts=chance.randint(1, 3),
        slots=chance.randint(1, 4),
        hosts_max=chance.randint(1, 3),
        queue_limit=chance.randint(1, 3),
        transient_after=chance.uniform(1, 20),
        transient_after_background=chance.uniform(1, 20),
    )


def _seal_after(seed: int) -> float:
    """Seconds, soon for every other seed and never for the rest, so that neither hides what the other finds.

    Chosen beside the rest: the seeds that do not seal take the same course as before there was sealing.
    """
    return NEVER if seed % 2 else Random(f"{seed}/sealing").uniform(0, SEALED_SOON_SECONDS)


async def _unfinished(world: World) -> Sequence[object]:
    """What runs, or has ended and is not sealed although it is to be."""
    log = world.database.log
    running = await log.heads(states=RUNNING, limit=1)
    if running or world.config.seal_after == NEVER:
        return running
    return await log.heads(category=STORED, sealed=False, limit=1)


def _note(outcome: Outcome, context: dict[str, Any]) -> None:
    error = context.get("exception")
    outcome.problems.append(f"{context['message']}: {error!r}")


@contextmanager
def _tracing(outcome: Outcome, loop: SimulatedLoop) -> Iterator[None]:
    """Everything that is logged, with the time and the process; an unforeseen exception is a problem."""

    class Trace(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            where = current_process() or "-"
            if len(outcome.trace) < TRACE_MAX:
                outcome.trace.append(f"{loop.time():9.4f} {where}: {record.getMessage()}")
            error = record.exc_info[1] if record.exc_info else None
            if error is not None and not isinstance(error, EventStoreError | HostDied):
                outcome.problems.append(f"{record.getMessage()}: {error!r}")

    trace = Trace()
    loggers = [logging.getLogger(name) for name in ("actors", "eventstore", "runtime", "tests.simulator")]
    before = [(logger, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(trace)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, level, propagate in before:
            logger.removeHandler(trace)
            logger.setLevel(level)
            logger.propagate = propagate
