"""Kills everything under many unfinished answers, starts it again, and says how soon each goes on.

python -m tests.chaos.restart --streams 1000
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
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.driver import at_share
from tests.e2e.log import findings, log_of, records
from tests.e2e.parts import kill_all
from tests.e2e.upstream import KEY, Upstream
from tests.e2e.wire import check_whole, replayed, text_of
from tests.fakes.script import words
from tests.launching import Instance
from tests.patience import PATIENCE_S

DELTAS = 30
TEXT = "".join(words(DELTAS))
MODELS = """
upstreams:
  fake: {{url: "{url}", key_env: CHAOS_KEY}}
models:
  slow: {{upstream: fake, model: "fake?deltas={deltas}&interval_ms=2000&goes_on=1"}}
"""
AT_ONCE = 50
"""Requests of the clients."""
BEGUN_S = 60.0
GOES_ON_S = 60.0
LOOK_S = 0.5
SAYS = {"text_appended", "response_completed", "response_incomplete", "response_failed", "response_cancelled"}


class Restart:
    """Two servers on one data directory, one after the other."""

    def __init__(self, folder: Path, streams: int) -> None:
        self._folder = folder
        self._streams = streams
        self._log = log_of(folder / "data", os.environ)
        self._upstream = Upstream(folder / "upstream.log")
        self._servers: list[Instance] = []

    async def run(self) -> dict[str, Any]:
        """Figures: seconds from the `ready` line to the next recorded word or end of each answer."""
        first = await self._start()
        ids = await self._ask(first)
        begun = await self._heard_of(ids, 0, BEGUN_S)
        await asyncio.to_thread(kill_all, first)
        last = (await records(self._log))[-1].position
        second = await self._start()
        ready = time.time()
        again = await self._heard_of(ids, last, GOES_ON_S)
        after = [round(max(0.0, at - ready), 2) for at in again.values()]
        wrong = await self._wrong(second, ids)
        await asyncio.to_thread(second.stop)
        wrong += [str(finding) for finding in await findings(self._log)]
        return {
            "unfinished": len(ids),
            "had begun": len(begun),
            "went on": len(after),
            "after_s": {share: at_share(after, share) for share in (0.5, 0.99, 1.0)} if after else {},
            "wrong": wrong,
        }

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for server in self._servers:
            server.kill()
        self._upstream.stop()

    async def _start(self) -> Instance:
        models = self._folder / "models.yaml"
        models.write_text(MODELS.format(url=self._upstream.url, deltas=DELTAS))
        # All of them run at once, even where one host takes more than its half.
        options = ("--config", str(models), "--slots", str(self._streams))
        self._servers.append(Instance(self._folder / "data", *options, app=None, CHAOS_KEY=KEY))
        return await asyncio.to_thread(self._servers[-1].wait_ready)

    async def _ask(self, server: Instance) -> list[str]:
        body = {"model": "slow", "input": "x", "background": True}
        turn = asyncio.Semaphore(AT_ONCE)
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:

            async def ask() -> str:
                async with turn:
                    answer = await http.post("/v1/responses", json=body)
                assert answer.status_code == 200, answer.text
                return str(answer.json()["id"])

            return await asyncio.gather(*(ask() for _ in range(self._streams)))

    async def _heard_of(self, ids: Collection[str], after: int, limit_s: float) -> dict[str, float]:
        """When each first said something behind a position of the log, by the wall clock."""
        wanted = set(ids)
        said: dict[str, float] = {}
        deadline = time.monotonic() + limit_s
        while len(said) < len(wanted) and time.monotonic() < deadline:
            for record in await records(self._log, after):
                after = record.position
                if record.stream in wanted and not SAYS.isdisjoint(record.types):
                    said.setdefault(record.stream, record.recorded_at / 1000)
            await asyncio.sleep(LOOK_S)
        return said

    async def _wrong(self, server: Instance, ids: Collection[str]) -> list[str]:
        """What is not as it should be of the answers, once they are over."""
        turn = asyncio.Semaphore(AT_ONCE)
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:

            async def listen(response_id: str) -> str | None:
                try:
                    async with turn:
                        heard = await replayed(http, response_id)
                    final = check_whole(heard, strictly=False)
                    assert final["status"] == "completed", f"it is {final['status']}: {final['error']}"
                    assert text_of(heard) == TEXT, "its words are not the upstream's"
                except (httpx.HTTPError, AssertionError) as error:
                    return f"{response_id}: {error!r}"
                return None

            return [found for found in await asyncio.gather(*map(listen, ids)) if found is not None]


async def _run(streams: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rayspond-restart-") as folder:
        restart = Restart(Path(folder), streams)
        try:
            return await restart.run()
        finally:
            restart.close()


def main() -> None:
    """Run from the command line; ends with 1 if anything was wrong or did not go on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000, help="background responses that are unfinished")
    # As Ctrl-C does: whatever was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    figures = asyncio.run(_run(parser.parse_args().streams))
    json.dump(figures, sys.stdout, indent=1)
    print()
    sys.exit(bool(figures["wrong"]) or figures["went on"] < figures["unfinished"])


if __name__ == "__main__":
    main()
