"""What the actors of one cluster need to know, handed to every process that joins it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Isolation = Literal["shared", "exclusive", "dedicated"]

NAMESPACE = "rayspond"
"""The Ray namespace of every actor of ours."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Where the log and the bus are, and how responses are spread over hosts.  Picklable."""

    log_url: str = field(repr=False)
    """`sqlite:///<data dir>` (one node) or a Postgres URL, which may hold a password."""
    nats_url: str = field(repr=False)
    """With the runtime's credentials."""
    secret_key: str = field(default="", repr=False)
    """What clients keep for us is sealed with it."""
    config_path: str | None = None
    """The YAML file of models and agents."""
    isolation: Isolation = "shared"
    """Where a response runs unless its model or agent says otherwise."""
    hosts: int = 2
    """Shared hosts kept warm, one of them to spare."""
    slots: int = 256
    """Responses that run on one shared host at a time."""
    hosts_max: int = 16
    """Exclusive and dedicated hosts together, at most."""
    queue_limit: int = 256
    """Foreground responses that wait for a slot before others are refused."""
    lease_ttl: float = 3.0
    """Seconds without a sign of life after which a host counts as dead."""
    transient_after: float = 60.0
    """Seconds after its end at which a `store: false` response is erased."""
    transient_after_background: float = 600.0
    """The same, in the background: its client must come back for it."""
    seal_after: float = 3600.0
    """Seconds after its end at which a response's events are compressed."""
    retention: float = 0.0
    """Seconds after its end at which a response is erased; 0 keeps it."""
    jetstream_deltas: bool = False
    """Whether JetStream keeps `*.delta` events too."""
    jetstream_duplicate_window: float = 10.0
    jetstream_max_age: float = 24 * 3600.0
    jetstream_max_bytes: int = 1 << 30

    @property
    def data_dir(self) -> Path | None:
        """The directory of an embedded log, or None where the log is a server's."""
        prefix = "sqlite:///"
        return Path(self.log_url.removeprefix(prefix)) if self.log_url.startswith(prefix) else None
