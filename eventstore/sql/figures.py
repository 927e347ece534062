"""What a writer of the log counts, whatever the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from eventstore.meter import METER, SIZES

SECONDS: Final = METER.distribution("log_commit_seconds", "How long a transaction of the log's writer took.")
GROUP: Final = METER.distribution("log_commit_requests", "How many requests one transaction held.", SIZES)


def waiting(count: Callable[[], float]) -> None:
    """Let `count` tell how many requests wait for this process's writer."""
    METER.read("log_waiting", "Requests that wait for the log's writer.", count)
