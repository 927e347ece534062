"""What one project notices of another that floods the server: `python -m bench.fairness [--seconds N]`.

A quiet project's single client asks for streams of one delta, three times: alone; while another project has
hundreds of slow responses queued, so that every slot is taken; and while another project sends far more
requests than its quota admits.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import httpx

from bench.load import Figures, Load, drive, percentile
from bench.systems import System, rayspond, upstream

ADMIN: Final = "bench-admin"
SLOTS: Final = 8
"""Of each of the two hosts."""
QUEUED: Final = 400
SLOW: Final = "simulated?deltas=20&interval_ms=50"
"""A second each: those that are queued would keep whoever comes behind them waiting for 25 of them."""
CLIENTS: Final = 16
QUIET: Final = Load("quiet", "simulated?deltas=1", 1, 1, 0.0)


class Server:
    """A server with two projects."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._base = system.url.removesuffix("/v1/responses")
        self._operator = httpx.AsyncClient(base_url=self._base, headers={"x-admin-key": ADMIN}, timeout=60)

    async def tenant(self, name: str, **quota: int) -> tuple[str, str]:
        """The id and a key of a new project."""
        project = await self._post("", {"name": name})
        if quota:
            await self._post(f"/{project['id']}/quota", quota)
        key = await self._post(f"/{project['id']}/api_keys", {"name": "bench"})
        return project["id"], key["value"]

    async def quiet(self, key: str, seconds: float) -> Figures:
        """What the quiet project sees."""
        load = Load(QUIET.name, QUIET.model, QUIET.clients, QUIET.deltas, seconds)
        return await drive(self._system.url, load, None, key=key)

    async def queue(self, key: str, count: int) -> list[str]:
        """Slow responses in the background; their ids."""
        limit = asyncio.Semaphore(CLIENTS)
        async with self._client(key) as client:

            async def one() -> str:
                async with limit:
                    body = {"model": SLOW, "input": "flood", "background": True}
                    return str((await client.post("/v1/responses", json=body)).json()["id"])

            return await asyncio.gather(*(one() for _ in range(count)))

    async def hammer(self, key: str, until: asyncio.Event) -> Counter[int]:
        """Ask without a pause; the statuses of the answers."""
        statuses: Counter[int] = Counter()
        async with self._client(key) as client:

            async def ask() -> None:
                while not until.is_set():
                    answer = await client.post("/v1/responses", json={"model": "simulated", "input": "x"})
                    statuses[answer.status_code] += 1

            await asyncio.gather(*(ask() for _ in range(CLIENTS)))
        return statuses

    async def cancel(self, key: str, ids: list[str]) -> None:
        """End what is left of the queue."""
        async with self._client(key) as client:
            for id in ids:
                await client.post(f"/v1/responses/{id}/cancel")

    async def aclose(self) -> None:
        """Disconnect."""
        await self._operator.aclose()

    def _client(self, key: str) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self._base, headers=headers, timeout=60)

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self._operator.post(f"/v1/organization/projects{path}", json=body)
        return dict(answer.raise_for_status().json())


async def measure(system: System, seconds: float) -> list[tuple[str, Figures]]:
    """The quiet project's figures in the three cases."""
    server = Server(system)
    try:
        _, quiet = await server.tenant("quiet")
        _, flood = await server.tenant("flood")
        _, bounded = await server.tenant("bounded", requests_per_minute=60)
        await server.quiet(quiet, min(seconds, 2))
        rows = [("alone", await server.quiet(quiet, seconds))]
        ids = await server.queue(flood, QUEUED)
        rows.append((f"beside {QUEUED} slow responses that wait", await server.quiet(quiet, seconds)))
        await server.cancel(flood, ids)
        over = asyncio.Event()
        hammering = asyncio.create_task(server.hammer(bounded, over))
        rows.append((f"beside {CLIENTS} clients above their quota", await server.quiet(quiet, seconds)))
        over.set()
        print("  answers to those:", dict(await hammering), flush=True)
        return rows
    finally:
        await server.aclose()


def table(rows: list[tuple[str, Figures]]) -> str:
    """The figures as Markdown."""
    lines = ["| the quiet project | streams/s | p50 ms | p99 ms |", "|---|---|---|---|"]
    for name, figures in rows:
        p50, p99 = (1e3 * percentile(figures.whole, share) for share in (0.5, 0.99))
        lines.append(f"| {name} | {figures.streams_per_s:,.1f} | {p50:,.1f} | {p99:,.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Start a server, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="rayspond-bench-") as folder:
        scratch = Path(folder)
        settings = {"RAYSPOND_ADMIN_KEY": ADMIN, "RAYSPOND_SLOTS": str(SLOTS)}
        with upstream(scratch) as url, rayspond("shared", url, scratch, settings) as system:
            print(table(asyncio.run(measure(system, seconds))))


if __name__ == "__main__":
    main()
