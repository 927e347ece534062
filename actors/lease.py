"""A host's sign of life, renewed from a thread so that a busy event loop does not look like death."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from eventstore.errors import EventStoreError, LeaseLost
from eventstore.meter import METER

log = logging.getLogger(__name__)

_AWAY = METER.counter("log_away_seconds", "Seconds in which a host could not renew its lease in the log.")


class LeaseKeeper:
    """Renews one lease until it is told to stop or the lease is taken away.

    `renew` blocks and may raise; `lost` is called, on the keeper's thread, at most once.
    """

    def __init__(self, renew: Callable[[], None], lost: Callable[[], None], interval: float) -> None:
        self._renew = renew
        self._lost = lost
        self._interval = interval
        self._stop = threading.Event()
        self._misses = 0
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def start(self) -> None:
        """Renew once, here and now, so that the lease exists; then keep it."""
        self._renew()
        self._thread.start()

    def stop(self) -> None:
        """Let the lease run out."""
        self._stop.set()

    def beat(self) -> bool:
        """Renew once; False where there is no lease any more, which `lost` was told."""
        try:
            self._renew()
        except LeaseLost:
            self._lost()
            return False
        except EventStoreError as error:
            # While the store is away nobody can take over either: leases stretch.
            log.warning("lease not renewed: %s", error)
            self._misses += 1
        except Exception:
            # A keeper that stops takes its host with it, which is worse than a renewal that is missed.
            log.exception("lease not renewed")
            self._misses += 1
        return True

    def _keep(self) -> None:
        looked = time.monotonic()
        while not self._stop.wait(self._interval):
            before, missed = looked, self._misses
            if not self.beat():
                return
            looked = time.monotonic()
            if self._misses > missed:
                _AWAY.add(looked - before)
