"""A replica's own log, bus, clients of hosts and API, opened in its process."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.metadata import version

from actors.client import RuntimeClient
from actors.collector import spare_what_stays
from actors.config import ClusterConfig
from actors.hosts import SupervisorHandle
from actors.stores import open_reader
from eventstore.meter import METER
from eventstore.nats_bus import NatsLiveBus
from eventstore.nats_connection import count_bus
from eventstore.sql.log_reader import SqlLogReader
from runtime.catalog import Catalog
from runtime.discovery import discover
from serve_app.asgi import Api
from serve_app.launch import haproxy
from serve_app.limits import Limits
from serve_app.settings import Settings

log = logging.getLogger(__name__)


class ReplicaParts:
    """Everything of one replica."""

    def __init__(self, api: Api, runtime: RuntimeClient, bus: NatsLiveBus, reader: SqlLogReader) -> None:
        self.api = api
        self._runtime = runtime
        self._bus = bus
        self._reader = reader

    @classmethod
    async def open(
        cls, settings: Settings, config: ClusterConfig, supervisor: SupervisorHandle, env: Mapping[str, str]
    ) -> ReplicaParts:
        """Open the bus and the log, and begin to watch the hosts; `env` holds the upstreams' keys."""
        bus = await NatsLiveBus.connect(config.nats_url, "rayspond-api")
        reader = open_reader(config)
        runtime = RuntimeClient(config, reader, bus, supervisor)
        await runtime.start()
        api = Api(
            runtime,
            Catalog(),
            secret=settings.secret_key or "",
            admin_key=settings.admin_key,
            limits=Limits.of(settings),
            names=(settings.host,),
            names_requests=False,  # Serve does.
            code=version("rayspond"),
            env=env,
            warnings=haproxy.warnings(os.environ),
        )
        count_bus(bus.connection)
        METER.read("requests_open", "Requests that are answered now.", lambda: len(api.open))
        METER.read("streams_open", "Those of them that are streams.", lambda: api.open.streams)
        METER.read("followers", "Who hears of responses over the bus.", lambda: bus.followers)
        spare_what_stays()
        return cls(api, runtime, bus, reader)

    async def use(self, catalog: Catalog) -> None:
        """Take the models of a catalog, and where it names none those of servers on this machine."""
        if not catalog.configured:
            for found in await discover():
                catalog = catalog.with_found(dict.fromkeys(found.models, found.upstream))
        self.api.use(catalog)
        log.info("models: %s", ", ".join(catalog.ids()))

    async def aclose(self) -> None:
        """Let go of everything."""
        await self.api.aclose()
        await self._runtime.aclose()
        await self._bus.aclose()
        await self._reader.aclose()
