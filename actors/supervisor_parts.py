"""The supervisor's own log, bus and hosts, and the relay that lives beside it, opened in its process."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from actors.config import ClusterConfig
from actors.ray_hosts import RayHostFactory
from actors.stores import open_store
from actors.supervisor import Supervisor
from actors.view import ResponseView
from eventstore.nats_bus import NatsLiveBus
from eventstore.sql.sqlite import SqliteEventStore
from runtime.catalog import Catalog, UnknownModel
from runtime.config import load

log = logging.getLogger(__name__)


class SupervisorParts:
    """Everything of the supervisor's process."""

    def __init__(self, supervisor: Supervisor, store: SqliteEventStore, bus: NatsLiveBus) -> None:
        self.supervisor = supervisor
        self.store = store
        self.bus = bus
        self.view = ResponseView(store, bus)

    @classmethod
    async def open(cls, config: ClusterConfig) -> SupervisorParts:
        """Open everything and start the hosts: one of them owns the log, and this process uses it."""
        catalog = load(config.config_path, os.environ)
        store = open_store(config, may_own=False)
        bus = await NatsLiveBus.connect(config.nats_url, "supervisor")
        supervisor = Supervisor(
            config,
            store,
            RayHostFactory(config),
            now=time.time,
            options_of=lambda model: _options(catalog, model),
        )
        await supervisor.start()
        return cls(supervisor, store, bus)


def _options(catalog: Catalog, model: str) -> Mapping[str, Any]:
    try:
        return catalog.resolve(model).ray_options
    except UnknownModel:
        return {}
