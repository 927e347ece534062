"""The supervisor's own log, bus and hosts, and the relay that lives beside it, opened in its process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

from actors.config import ClusterConfig
from actors.ray_hosts import RayHostFactory
from actors.relay import captured_subjects, response_relay
from actors.stores import open_store
from actors.supervisor import Supervisor
from actors.view import ResponseView
from eventstore.nats_bus import NatsLiveBus
from eventstore.nats_public import JetStreamSettings
from eventstore.relay import Relay
from eventstore.sql.sqlite import SqliteEventStore
from runtime.catalog import Catalog, UnknownModel
from runtime.config import load


class SupervisorParts:
    """Everything of the supervisor's process."""

    def __init__(
        self, supervisor: Supervisor, store: SqliteEventStore, bus: NatsLiveBus, relay: Relay
    ) -> None:
        self.supervisor = supervisor
        self.view = ResponseView(store, bus)
        self._store = store
        self._bus = bus
        self._relay = relay
        # Held here: a task that nobody refers to may vanish.
        self._relaying = asyncio.create_task(relay.run(), name="relay")

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
        try:
            await supervisor.start()
        except BaseException:
            # The next call tries again, with connections of its own; hosts that came up are found then.
            await bus.aclose()
            await store.aclose()
            raise
        return cls(supervisor, store, bus, response_relay(store, bus, _jetstream(config)))

    def relay_lag(self) -> int:
        """How many positions the public subjects are behind the log."""
        return self._relay.lag

    async def close(self) -> None:
        """End the hosts, then the relay, its cursor saved."""
        self._relaying.cancel()
        await asyncio.gather(self._relaying, return_exceptions=True)
        await self.supervisor.close()
        await self._bus.aclose()
        await self._store.aclose()


def _jetstream(config: ClusterConfig) -> JetStreamSettings:
    return JetStreamSettings(
        subjects=captured_subjects(config.jetstream_deltas),
        duplicate_window=config.jetstream_duplicate_window,
        max_age=config.jetstream_max_age,
        max_bytes=config.jetstream_max_bytes,
    )


def _options(catalog: Catalog, model: str) -> Mapping[str, Any]:
    try:
        return catalog.resolve(model).ray_options
    except UnknownModel:
        return {}
