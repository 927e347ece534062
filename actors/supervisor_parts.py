"""The supervisor's own log, bus and hosts, and the relay that lives beside it, opened in its process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from actors.background import end
from actors.collector import spare_what_stays
from actors.config import ClusterConfig
from actors.quotas import Ledger
from actors.ray_hosts import RayHostFactory
from actors.relay import captured_subjects, relay_warnings, response_relay, tokens_of
from actors.stores import open_store
from actors.supervisor import Supervisor
from actors.view import ResponseView
from eventstore.events import Batch
from eventstore.meter import METER
from eventstore.nats_bus import NatsLiveBus
from eventstore.nats_connection import NatsConnection, count_bus
from eventstore.nats_public import JetStreamSettings, NatsPublicBus
from eventstore.ports import EventStore
from eventstore.relay import Relay
from runtime.catalog import Catalog, UnknownModel
from runtime.config import load


class SupervisorParts:
    """Everything of the supervisor's process."""

    def __init__(self, supervisor: Supervisor, store: EventStore, bus: NatsLiveBus, relay: Relay) -> None:
        self.supervisor = supervisor
        self.view = ResponseView(store, bus)
        self._store = store
        self._bus = bus
        self._relay = relay
        _count(bus.connection, relay)
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
        public = NatsPublicBus(bus.connection, _jetstream(config))
        relay = response_relay(store, bus, public, _spends(supervisor.ledger))
        spare_what_stays()
        return cls(supervisor, store, bus, relay)

    def warnings(self) -> list[str]:
        """What is not as it should be although responses are served, in sentences."""
        return relay_warnings(self._relay, self._bus.connection)

    def capture_away(self) -> float:
        """See `Relay.capture_away`."""
        return self._relay.capture_away

    async def close(self) -> None:
        """End the hosts, then the relay, its cursor saved."""
        await end(self._relaying)
        await self.supervisor.close()
        await self._bus.aclose()
        await self._store.aclose()


def _spends(ledger: Ledger) -> Callable[[Batch], None]:
    """What counts the tokens of responses that end: each passes the relay, whoever waits for it."""

    def hear(batch: Batch) -> None:
        if batch.last and ledger.counts_tokens(batch.tenant):
            ledger.spend(batch.tenant, tokens_of(batch))

    return hear


def _jetstream(config: ClusterConfig) -> JetStreamSettings:
    return JetStreamSettings(
        subjects=captured_subjects(config.jetstream_deltas),
        duplicate_window=config.jetstream_duplicate_window,
        max_age=config.jetstream_max_age,
        max_bytes=config.jetstream_max_bytes,
    )


def _count(connection: NatsConnection, relay: Relay) -> None:
    METER.read("relay_lag_positions", "Positions of the log that are not public yet.", lambda: relay.lag)
    METER.read("relay_lag_seconds", "Age of the oldest of them.", lambda: relay.lag_seconds)
    METER.read("relay_hindered", "1 while something keeps the relay waiting.", lambda: not relay.healthy)
    METER.read("relay_damaged_streams", "Damaged streams, left unpublished.", lambda: len(relay.damaged))
    METER.read("capture_lag_positions", "Positions that JetStream lacks.", lambda: relay.capture_lag)
    count_bus(connection)


def _options(catalog: Catalog, model: str) -> Mapping[str, Any]:
    try:
        return catalog.resolve(model).ray_options
    except UnknownModel:
        return {}
