"""A host's own log, bus, models and lease, opened in its process."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping

from actors.config import ClusterConfig
from actors.host import ActorHost
from actors.hosts import HostSpec
from actors.lease import LeaseKeeper
from actors.response_actor import ActorIdentity, ActorPorts
from actors.stores import open_store
from eventstore.nats_bus import NatsLiveBus
from runtime.catalog import Resolved
from runtime.model import JSON, Model
from runtime.models.open import ModelPool

log = logging.getLogger(__name__)

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

    @classmethod
    async def open(cls, spec: HostSpec, config: ClusterConfig, node: str) -> HostParts:
        """Open the log, the bus and the lease.  Raises what they raise."""
        store = open_store(config, may_own=True)
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
        )
        host = ActorHost(ports, isolation=spec.isolation, slots=spec.slots, queue_limit=config.queue_limit)
        lease = LeaseKeeper(
            lambda: store.renew_lease_blocking(spec.name, config.lease_ttl), _stop, config.lease_ttl / 3
        )
        await asyncio.to_thread(lease.start)
        return cls(host, lease)


def _stop() -> None:
    """End the process: its streams have other owners by now, and nothing it could still do would count."""
    log.error("the lease was taken away; this host ends")
    os._exit(LEASE_LOST)
