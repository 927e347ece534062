"""What goes wrong, and how often: drawn anew for every seed, and nothing any more in the liveness phase."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from random import Random

log = logging.getLogger(__name__)


@dataclass
class Weather:
    """Rates are between 0 and 1.  Most seeds have only some of them, so that none hides another."""

    chance: Random
    # The store.
    store_away: float = 0.0
    """Calls that fail before anything happened."""
    store_unsure: float = 0.0
    """Commits of which nobody hears whether they happened: they did, did not, or will in a moment."""
    store_slow: float = 0.0
    # The live bus.
    bus_loses: float = 0.0
    bus_repeats: float = 0.0
    bus_delays: float = 0.0
    bus_strips: float = 0.0
    """Batches that arrive without their frames, as one too large for a message does."""
    # The public bus.
    public_fails: float = 0.0
    # Calls between processes.
    calls_lost: float = 0.0
    answers_lost: float = 0.0
    calls_slow: float = 0.0
    starts_fail: float = 0.0
    # Upstreams.
    upstream_refuses: float = 0.0
    upstream_cuts: float = 0.0
    upstream_stalls: float = 0.0
    # Things that happen at a moment, per second.
    host_kills: float = 0.0
    host_stops: float = 0.0
    host_losses: float = 0.0
    loop_blocks: float = 0.0
    supervisor_kills: float = 0.0
    supervisor_stops: float = 0.0
    replica_kills: float = 0.0
    store_outages: float = 0.0
    bus_outages: float = 0.0
    everything_kills: float = 0.0

    store_is_away: bool = False
    bus_is_away: bool = False

    def change(self) -> None:
        """Draw what goes wrong from now on."""
        calm = self.chance.random() < 0.05
        for name, most in _MOST.items():
            if not calm and self.chance.random() < 0.5:
                setattr(self, name, most * self.chance.random())

    def clear_up(self) -> None:
        """Let nothing go wrong from now on."""
        for field in fields(self):
            if field.type in ("float", "bool"):
                setattr(self, field.name, type(getattr(self, field.name))())

    def happens(self, rate: float) -> bool:
        """Whether something of that rate happens now."""
        return rate > 0 and self.chance.random() < rate

    def between(self, least: float, most: float) -> float:
        """A number in between, small ones more often."""
        return least + (most - least) * self.chance.random() ** 3


_MOST = {
    "store_away": 0.2,
    "store_unsure": 0.2,
    "store_slow": 0.2,
    "bus_loses": 0.9,
    "bus_repeats": 0.5,
    "bus_delays": 0.5,
    "bus_strips": 0.3,
    "public_fails": 0.3,
    "calls_lost": 0.3,
    "answers_lost": 0.3,
    "calls_slow": 0.3,
    "starts_fail": 0.5,
    "upstream_refuses": 0.4,
    "upstream_cuts": 0.5,
    "upstream_stalls": 0.2,
    "host_kills": 1.2,
    "host_stops": 1.0,
    "host_losses": 1.0,
    "loop_blocks": 0.4,
    "supervisor_kills": 0.4,
    "supervisor_stops": 0.3,
    "replica_kills": 0.4,
    "store_outages": 0.3,
    "bus_outages": 0.3,
    "everything_kills": 0.1,
}
