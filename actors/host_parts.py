"""A host's own log, bus, models and lease, opened in its process."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping

from actors.collector import spare_what_stays
from actors.config import ClusterConfig
from actors.host import ActorHost
from actors.hosts import HostSpec
from actors.lease import LeaseKeeper
from actors.response_actor import ActorIdentity, ActorPorts
from actors.stores import open_store
from eventstore.errors import EventStoreError
from eventstore.meter import METER
from eventstore.nats_bus import NatsLiveBus
from eventstore.nats_connection import count_bus
from runtime.catalog import Resolved
from runtime.model import JSON, Model
from runtime.models.open import ModelPool
from runtime.sealing import Seal

log = logging.getLogger(__name__)

RECLAIM_INTERVAL = 5.0
"""Seconds between looks for streams that the host owns but does not run."""

LEASE_LOST = 70
"""Exit code of a host that was declared dead while it lived."""


def recorded_model(pool: ModelPool) -> Callable[[Mapping[str, JSON]], Model]:
    """How a host opens the model that a response was created with, from what is recorded of it."""
    return lambda agent: pool.open(Resolved.from_public(agent))


class HostParts:
    """Everything of one host process."""

    def __init__(self, host: ActorHost, lease: LeaseKeeper) -> None:
        self.host = host
        self._lease = lease
        # Held here: a task that nobody refers to may vanish.
        self._reclaiming = asyncio.create_task(self._reclaim(), name="reclaim")

    @classmethod
    async def open(cls, spec: HostSpec, config: ClusterConfig, node: str) -> HostParts:
        """Open the log, the bus and the lease.  Raises what they raise."""
        # A host that lives as long as its response would take the log's writer with it.
        store = open_store(config, may_own=spec.isolation != "dedicated")
        # The first answer means that somebody owns the log, perhaps this process.
        await store.renew(spec.name, config.lease_ttl)
        bus = await NatsLiveBus.connect(config.nats_url, spec.name)
        identity = ActorIdentity(host=spec.name, actor=spec.actor, node=node, pid=os.getpid())
        ports = ActorPorts(
            store=store,
            bus=bus,
            open_model=recorded_model(ModelPool(os.environ)),
            now=time.time,
            sleep=asyncio.sleep,
            host=identity,
            seal=Seal(config.secret_key),
        )
        count_bus(bus.connection)
        host = ActorHost(ports, isolation=spec.isolation, slots=spec.slots, queue_limit=config.queue_limit)
        lease = LeaseKeeper(
            lambda: store.renew_lease_blocking(spec.name, config.lease_ttl), _stop, config.lease_ttl / 3
        )
        await asyncio.to_thread(lease.start)
        METER.read("responses_running", "Responses that run on this host.", lambda: host.info().running)
        METER.read("slots", "Responses that it can run at a time.", lambda: spec.slots)
        spare_what_stays()
        return cls(host, lease)

    async def _reclaim(self) -> None:
        while True:
            await asyncio.sleep(RECLAIM_INTERVAL)
            try:
                await self.host.reclaim()
            except EventStoreError as error:
                log.warning("streams that do not run here were not looked for: %s", error)


def _stop() -> None:
    """End the process: its streams have other owners by now, and nothing it could still do would count."""
    log.error("the lease was taken away; this host ends")
    os._exit(LEASE_LOST)
