"""The port through which the supervisor makes hosts and speaks to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from actors.orders import Answer, HostInfo, Order, Running
from actors.quotas import Ask, Lease
from eventstore.meter import Figures


class HostDied(Exception):
    """The host's process is gone, or cannot be reached any more."""


class HostUnreachable(HostDied):
    """The host may live; only its lease decides whether it is dead."""


class HostUnknown(HostDied):
    """No host of that name takes work."""


class HostHandle(Protocol):
    """One host, seen from elsewhere.  Every call raises `HostDied` where it is gone."""

    async def obey(self, orders: Sequence[Order]) -> Answer:
        """See `actors.host.ActorHost.obey`."""
        ...

    async def info(self) -> HostInfo:
        """The host as it stands."""
        ...

    async def running(self) -> list[Running]:
        """What runs there."""
        ...

    async def figures(self) -> Figures:
        """What its process has counted."""
        ...

    def gone(self) -> bool:
        """Whether there is evidence, at once and without asking it, that its process is dead or halted."""
        ...

    def kill(self) -> None:
        """End its process now."""
        ...


@dataclass(frozen=True, slots=True)
class HostSpec:
    """What kind of host to start."""

    name: str
    """Of this one incarnation: a lease that was taken away is never given to the same name again."""
    isolation: str
    slots: int
    options: Mapping[str, Any]
    """Ray's options for its actor (`num_cpus`, `num_gpus`, `memory`, `runtime_env`, ...)."""

    @property
    def actor(self) -> str:
        """The Ray actor's name: a response's actor keeps it when another takes the place of a dead one."""
        return actor_of(self.name)


def actor_of(host: str) -> str:
    """The name of the Ray actor that a host is, from the host's own."""
    return host.partition(".")[0]


class SupervisorHandle(Protocol):
    """The supervisor, seen from elsewhere.  Every call raises `HostDied` while it does not answer."""

    async def watch(self, version: int, timeout: float) -> tuple[int, list[tuple[HostInfo, HostHandle]]]:
        """See `actors.supervisor.Supervisor.watch`."""
        ...

    async def reserve(self, response_id: str, isolation: str, model: str) -> str:
        """See `actors.supervisor.Supervisor.reserve`."""
        ...

    async def host(self, name: str) -> HostHandle | None:
        """See `actors.supervisor.Supervisor.host`."""
        ...

    async def running(self) -> list[tuple[HostInfo, list[Running]]]:
        """See `actors.supervisor.Supervisor.running`."""
        ...

    async def lend(self, ask: Ask) -> Lease:
        """See `actors.quotas.Ledger.lend`."""
        ...

    async def report(self, process: str, figures: Figures) -> None:
        """See `actors.census.Census.report`."""
        ...

    async def figures(self) -> list[tuple[str, Figures]]:
        """See `actors.supervisor.Supervisor.figures`."""
        ...

    async def warnings(self) -> list[str]:
        """What is not as it should be although responses are served, in sentences."""
        ...


class HostFactory(Protocol):
    """Starts hosts."""

    async def start(self, spec: HostSpec) -> HostHandle:
        """Start a host and wait until it obeys.  Raises `HostDied` where it does not come up.

        A caller that is cancelled leaves no host behind.
        """
        ...

    async def found(self) -> Sequence[tuple[HostSpec, HostHandle, HostInfo]]:
        """Hosts that an earlier supervisor left running and that answer; each is given once.

        One that does not answer is looked for again at the next call, and ended after a few.
        """
        ...
