"""How much a client may send, and how long an answer may stay silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventstore.follow import PATIENCE

if TYPE_CHECKING:
    from serve_app.settings import Settings


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the HTTP layer.  Sizes are bytes, times are seconds."""

    body: int = 32 * 1024 * 1024
    item: int = 10 * 1024 * 1024
    metadata: int = 16 * 1024
    items: int = 20_000
    """Input items of one request: the context of a very long session has some thousands."""
    max_output_tokens: int = 8000
    """The most a request may ask for."""
    body_seconds: float = 60.0
    """A body that has not arrived by then never will; it holds a connection."""
    keep_alive: float = 15.0
    """Silence after which a comment shows a client and the proxies on the way that the stream lives."""
    grace: float = 30.0
    """How long a foreground response goes on without a client, so that a lost connection can come back."""
    silence: float = 1.0
    """Silence of the bus after which a stream looks into the log, and whether its client is there still."""
    patience: float = PATIENCE
    """How long a log that cannot be reached is waited for before a stream is cut."""
    idempotency: float = 24 * 3600.0
    """How long an `Idempotency-Key` is remembered."""

    stall: float = 30.0
    """How long a client may take nothing of its answer before its connection is cut."""

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """What the operator set."""
        return cls(
            body=settings.body_limit_bytes,
            item=settings.item_limit_bytes,
            metadata=settings.metadata_limit_bytes,
            stall=settings.client_stall_s,
            max_output_tokens=settings.max_output_tokens,
            grace=float(settings.grace_s),
            idempotency=settings.idempotency_ttl_s,
        )
