"""Budgets: how much each project may still use, lent to replicas in slices.  Kept in the supervisor's memory.

Nothing here is recorded.  After a restart every budget is full again, and replicas tell what they hold.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

MINUTE: Final = 60.0
HOLD_S: Final = 5.0
"""Seconds for which a replica holds streams without saying so again; one that died holds none afterwards."""
KNOWN_MAX: Final = 10_000
"""Projects with a budget; those that asked least recently begin again with a full one."""
DEBT_MAX: Final = 10.0
"""Minutes of tokens that a project can be behind: what runs may end long after the budget is used up."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a replica wants for a project, with the bounds as it knows them (None: without bound)."""

    project: str
    replica: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    open_streams: int | None
    requests: int
    """Requests it wants to admit."""
    unused: int
    """What is left of the slice before, which it gives back."""
    streams_open: int
    streams: int
    """Streams it wants to be allowed, those that are open included."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a replica was given."""

    requests: int
    streams: int
    requests_left: int
    """What the project has left besides, for the headers."""
    tokens_left: int
    requests_full_in: float
    """Seconds until the budget is full again."""
    tokens_full_in: float
    again_in: float
    """Seconds after which a request could be admitted, where none was."""


@dataclass(slots=True)
class _Bucket:
    """What flows in evenly, a minute's worth at most."""

    limit: int
    level: float
    at: float

    def fill(self, limit: int, now: float) -> None:
        """Take in what flowed since, under a limit that may be another one now."""
        self.level += max(0, limit - self.limit) + (now - self.at) * limit / MINUTE
        self.level, self.limit, self.at = min(self.level, float(limit)), limit, now

    def seconds_until(self, level: float) -> float:
        """How long it takes to fill up to `level`."""
        if self.level >= level:
            return 0.0
        return (level - self.level) * MINUTE / self.limit if self.limit else MINUTE


@dataclass(slots=True)
class _Account:
    requests: _Bucket | None = None
    tokens: _Bucket | None = None
    streams: dict[str, tuple[int, float]] = field(default_factory=dict)
    """What each replica holds, and until when."""


class Ledger:
    """The accounts of all projects.  `now` gives seconds of a clock that never goes back."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def lend(self, ask: Ask) -> Lease:
        """A slice for a replica, as far as the project has it."""
        account = self._accounts.setdefault(ask.project, _Account())
        self._accounts.move_to_end(ask.project)
        while len(self._accounts) > KNOWN_MAX:
            self._accounts.popitem(last=False)
        now = self._now()
        requests = account.requests = _filled(account.requests, ask.requests_per_minute, now)
        tokens = account.tokens = _filled(account.tokens, ask.tokens_per_minute, now)
        granted, again_in = ask.requests, 0.0
        if requests is not None:
            requests.level = min(requests.level + ask.unused, float(requests.limit))
            granted = min(granted, math.floor(requests.level))
            again_in = requests.seconds_until(1.0)
        if tokens is not None and tokens.level < 1.0:
            granted, again_in = 0, max(again_in, tokens.seconds_until(1.0))
        if requests is not None:
            requests.level -= granted
        return Lease(
            requests=granted,
            streams=_streams(account, ask, now),
            requests_left=math.floor(requests.level) if requests else 0,
            tokens_left=max(0, math.floor(tokens.level)) if tokens else 0,
            requests_full_in=requests.seconds_until(requests.limit) if requests else 0.0,
            tokens_full_in=tokens.seconds_until(tokens.limit) if tokens else 0.0,
            again_in=again_in if not granted else 0.0,
        )

    def counts_tokens(self, project: str) -> bool:
        """Whether anybody has asked how many tokens the project may use."""
        account = self._accounts.get(project)
        return account is not None and account.tokens is not None

    def spend(self, project: str, tokens: int) -> None:
        """A response of the project has used so many; it may have had fewer left."""
        account = self._accounts.get(project)
        if account is not None and (bucket := account.tokens) is not None:
            bucket.level = max(bucket.level - tokens, -DEBT_MAX * bucket.limit)


def _filled(bucket: _Bucket | None, limit: int | None, now: float) -> _Bucket | None:
    if limit is None:
        return None
    if bucket is None:
        return _Bucket(limit, float(limit), now)
    bucket.fill(limit, now)
    return bucket


def _streams(account: _Account, ask: Ask, now: float) -> int:
    held = {who: one for who, one in account.streams.items() if one[1] > now and who != ask.replica}
    account.streams = held
    if ask.open_streams is None:
        return ask.streams
    others = sum(count for count, _ in held.values())
    # What is open stays open, also where the bound was lowered meanwhile.
    granted = max(ask.streams_open, min(ask.streams, ask.open_streams - others))
    if granted:
        held[ask.replica] = (granted, now + HOLD_S)
    return granted
