"""Breaks a running server, again and again, while clients listen; then says what they heard.

python -m tests.chaos.driver --seconds 3600 --seed 7
python -m tests.chaos.driver --seconds 3600 --seed 7 --postgres
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.clients import GOES_ON, KINDS, LISTENS, REPEATS, Clients
from tests.chaos.faults import BLOCKS, FAULTS, Scene, names_for
from tests.e2e.log import findings, log_of
from tests.e2e.parts import HOST, REPLICA, named
from tests.e2e.upstream import KEY, PACED_DELTAS, Upstream
from tests.launching import Instance
from tests.postgres_server import PostgresServer

MODELS = """
upstreams:
  fake: {{url: "{url}", key_env: CHAOS_KEY}}
models:
  repeats: {{upstream: fake, model: "fake?deltas={deltas}&interval_ms=50", resume: repeat}}
  goes-on: {{upstream: fake, model: "fake?deltas={deltas}&interval_ms=50&goes_on=1"}}
  calls: {{upstream: fake, model: "fake?tools=1&arguments={{}}"}}
agents:
  {blocks}:
    model: calls
    tools: [{{python: "tests.chaos.blocking:block", name: block, parameters: {{type: object}}}}]
"""
APART_S = (4.0, 10.0)
"""Seconds between two faults, at least and at most; each begins on a server that is whole."""
WHOLE_S = 120.0
"""How long a server may take to be whole again after a fault."""
ENDS_S = 60.0
"""How long one that cannot go on may take to say so and end."""
LOOK_S = 0.5
GRACE_S = 300
"""For clients that are cut when everything is killed: it takes longer to come back than the usual grace."""
AFFECTED_S = 0.25
"""A pause that is longer than this came of the fault: events are 50 ms apart."""


@dataclass
class Report:
    """What became of one run."""

    seed: int
    faults: list[tuple[str, float]] = field(default_factory=list)
    """Names, and when each began, by the monotonic clock."""
    whole: dict[str, list[float]] = field(default_factory=dict)
    """Seconds from the blow until the server was whole again, by fault."""
    counts: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    pauses: dict[str, list[float]] = field(default_factory=dict)
    """Seconds to the next event of every answer that a fault held up and whose model goes on, by fault."""

    def to_json(self) -> dict[str, Any]:
        """Figures for people."""
        times = {name: sum(fault == name for fault, _ in self.faults) for name, _ in self.faults}
        pauses = {name: {"answers": len(found), **_shares(found)} for name, found in self.pauses.items()}
        return {
            "seed": self.seed,
            "faults": times,
            "answers": self.counts,
            "wrong": self.wrong,
            "pause_s": pauses,
            "whole_after_s": {name: max(found) for name, found in self.whole.items()},
        }


class Chaos:
    """One server, its upstream, its clients and what breaks it."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        clients: int,
        *,
        models: Sequence[str] = (REPEATS, GOES_ON),
        kinds: Sequence[str] = KINDS,
        postgres: bool = False,
    ) -> None:
        self._folder = folder
        self._chance = Random(seed)
        self._count, self._models, self._kinds = clients, models, kinds
        self._report = Report(seed)
        self._instance: Instance | None = None
        self._database = PostgresServer() if postgres else None
        self._upstream = Upstream(folder / "upstream.log")
        # What ends is sealed at once, beside whatever happens.
        self._environment = {"CHAOS_KEY": KEY, "RAYSPOND_SEAL_AFTER_S": "0"}

    async def run(self, seconds: float, names: Sequence[str]) -> Report:
        """Let faults of these names happen for so long; what was heard and found, when all is quiet."""
        if self._database is not None:
            self._environment["RAYSPOND_LOG_URL"] = self._database.start().make_empty("chaos")
        instance = await self._start()
        clients = Clients(instance.url, self._count, self._models, self._kinds)
        deadline = time.monotonic() + seconds
        await asyncio.sleep(APART_S[0])
        left: list[str] = []
        while time.monotonic() < deadline:
            # Each once before any comes again.
            left = left or self._chance.sample(list(names), len(names))
            name = left.pop()
            moment = await self._strike(name, instance)
            if FAULTS[name].ends:
                await asyncio.to_thread(_until_ended, instance)
                instance = await self._start()
                clients.url = instance.url
            await _whole(instance, name)
            if moment is not None:
                self._report.whole.setdefault(name, []).append(round(time.monotonic() - moment, 1))
            await asyncio.sleep(self._chance.uniform(*APART_S))
        await clients.stop()
        await clients.compare()
        await asyncio.to_thread(instance.stop)
        self._judge(clients)
        log = log_of(instance.data_dir, {**os.environ, **self._environment})
        self._report.wrong += [str(finding) for finding in await findings(log)]
        return self._report

    def close(self) -> None:
        """End everything, whatever state it is in."""
        if self._instance is not None:
            self._instance.kill()
        self._upstream.stop()
        if self._database is not None:
            self._database.remove()

    async def _start(self) -> Instance:
        models = self._folder / "models.yaml"
        models.write_text(MODELS.format(url=self._upstream.url, deltas=PACED_DELTAS, blocks=BLOCKS))
        options = ("--config", str(models), "--grace-s", str(GRACE_S))
        self._instance = Instance(self._folder / "data", *options, app=None, **self._environment)
        return await asyncio.to_thread(self._instance.wait_ready)

    async def _strike(self, name: str, instance: Instance) -> float | None:
        """When it happened, by the monotonic clock; None where there was nothing to be struck."""
        # Victims are found beside the clients, whose pauses are measured from the blow.
        scene = Scene(instance, self._database)
        blow = await asyncio.to_thread(FAULTS[name].aim, scene, self._chance)
        if blow is None:
            return None
        moment = time.monotonic()
        self._report.faults.append((name, moment))
        await blow()
        return moment

    def _judge(self, clients: Clients) -> None:
        report = self._report
        report.counts, report.wrong = dict(clients.counts), clients.wrong
        pauses: dict[str, list[float]] = defaultdict(list)
        for name, moment in report.faults:
            for heard in clients.heard:
                if (heard.model, heard.kind) != (GOES_ON, LISTENS):
                    continue  # Nothing is shown while a model repeats what it said, or to who is away.
                pause = heard.pause_over(moment)
                if pause is not None and pause > AFFECTED_S:
                    pauses[name].append(pause)
        report.pauses = dict(pauses)


def _until_ended(instance: Instance) -> None:
    """Wait until nothing is left of a server that ends by itself, or was ended."""
    instance.process.wait(ENDS_S)


async def _whole(instance: Instance, name: str) -> None:
    deadline = time.monotonic() + WHOLE_S
    while not await asyncio.to_thread(_is_whole, instance):
        assert time.monotonic() < deadline, f"it is not whole {WHOLE_S:.0f} s after {name}"
        await asyncio.sleep(LOOK_S)


def _is_whole(instance: Instance) -> bool:
    try:
        ready = instance.get("/readyz")[0] == 200
    except (OSError, HTTPException):
        return False
    return ready and min(len(named(instance, HOST)), len(named(instance, REPLICA))) >= 2


def at_share(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies."""
    return round(sorted(values)[min(len(values) - 1, int(len(values) * share))], 2)


def _shares(values: Sequence[float]) -> dict[str, float]:
    return {"p50": at_share(values, 0.5), "p99": at_share(values, 0.99), "most": at_share(values, 1)}


async def _run(arguments: argparse.Namespace) -> Report:
    kept: Path | None = arguments.folder
    with tempfile.TemporaryDirectory(prefix="rayspond-chaos-") as folder:
        chaos = Chaos(
            kept or Path(folder),
            arguments.seed,
            arguments.clients,
            models=arguments.models,
            kinds=arguments.kinds,
            postgres=arguments.postgres,
        )
        names = arguments.faults or names_for(database=arguments.postgres)
        try:
            return await chaos.run(arguments.seconds, names)
        finally:
            chaos.close()


def main() -> None:
    """Run from the command line; ends with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="for how long faults happen")
    parser.add_argument("--seed", type=int, default=1, help="chooses faults, victims and pauses")
    parser.add_argument("--clients", type=int, default=20, help="how many ask at a time")
    parser.add_argument("--models", nargs="+", default=[REPEATS, GOES_ON], choices=[REPEATS, GOES_ON])
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="what clients do")
    parser.add_argument("--faults", nargs="+", choices=list(FAULTS), help="all that the log can have")
    parser.add_argument("--postgres", action="store_true", help="with the log in a Postgres of its own")
    parser.add_argument("--folder", type=Path, help="an empty one for data and logs, which stay there")
    # As Ctrl-C does: whatever was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = asyncio.run(_run(parser.parse_args()))
    json.dump(report.to_json(), sys.stdout, indent=1)
    print()
    sys.exit(bool(report.wrong))


if __name__ == "__main__":
    main()
