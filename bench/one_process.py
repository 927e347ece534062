"""The same core without Ray: one process, uvicorn in front, the log in SQLite on disk, no NATS.

`python -m bench.one_process --port 8099 --data-dir D --upstream-url U` serves the API until it is ended by a
signal.  Nothing outlives that process and nothing takes over from it: what the platform adds costs the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import uvicorn
import uvloop

from actors.client import RuntimeClient
from actors.collector import spare_what_stays
from actors.host_parts import recorded_model
from actors.supervisor import Supervisor
from eventstore.memory import MemoryLiveBus
from eventstore.sql.sqlite import SqliteEventStore
from runtime import config
from runtime.model import JSON, Model
from runtime.models.open import ModelPool
from serve_app.asgi import Api
from tests.local_cluster import CONFIG, LocalFactory, LocalSupervisor


class OneProcess:
    """Hosts and their supervisor in this process, over the log in `store`."""

    def __init__(self, store: SqliteEventStore, slots: int = 256) -> None:
        # Nobody else can take anything over, so no lease ends.
        self.config = replace(CONFIG, hosts=1, slots=slots, lease_ttl=86_400.0)
        self.store = store
        self.bus = MemoryLiveBus()
        self._pool = ModelPool({})
        self._recorded = recorded_model(self._pool)
        self._supervisor = Supervisor(self.config, store, LocalFactory(self), now=time.time)
        self.client = RuntimeClient(self.config, store, self.bus, LocalSupervisor(self._supervisor))

    def open_model(self, agent: Mapping[str, JSON]) -> Model:
        """What the configuration says of that name."""
        return self._recorded(agent)

    async def __aenter__(self) -> OneProcess:
        """Start."""
        await self._supervisor.start()
        await self.client.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """End everything."""
        await self.client.aclose()
        await self._supervisor.close()
        await self._pool.aclose()


@asynccontextmanager
async def _api(data_dir: Path, upstream_url: str, slots: int) -> AsyncIterator[Api]:
    catalog = config.load(None, {config.URL_ENV: upstream_url})
    store = await SqliteEventStore.open(data_dir, may_own=True)
    try:
        async with OneProcess(store, slots) as process:
            spare_what_stays()
            api = Api(process.client, catalog, secret=CONFIG.secret_key)
            yield api
            await api.aclose()
    finally:
        await store.aclose()


async def _serve(port: int, data_dir: Path, upstream_url: str, slots: int) -> None:
    async with _api(data_dir, upstream_url, slots) as api:
        await uvicorn.Server(uvicorn.Config(api, port=port, log_level="warning", lifespan="off")).serve()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--upstream-url", required=True)
    parser.add_argument("--slots", type=int, default=256, help="responses at once (default: 256)")
    options = parser.parse_args()
    options.data_dir.mkdir(parents=True, exist_ok=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options.port, options.data_dir, options.upstream_url, options.slots))


if __name__ == "__main__":
    main()
