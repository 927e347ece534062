"""What a project may still use, as one replica knows it: slices of the budgets that the supervisor keeps.

By how much each quota can be exceeded is said in docs/projects.md.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from actors.quotas import Ask, Lease
from eventstore.errors import StoreUnavailable
from runtime.project.state import ProjectState
from runtime.project.state import Quotas as Bounds
from runtime.response.standing import RESPONSES, RUNNING
from serve_app.call import Call
from serve_app.errors import ApiError, Problem
from serve_app.projects import Projects
from serve_app.runtime_port import Runtime

log = logging.getLogger(__name__)

SLICE_S: Final = 1.0
"""Seconds for which a slice may be used; what is left then goes back with the next question."""
SLICES: Final = 20
"""The part of a minute's budget that one slice is."""
SLICE_MAX: Final = 100
TOKENS_ONLY: Final = 200
"""Requests a minute that slices are made for where only tokens are bounded."""
RENEW_S: Final = 1.0
"""Seconds between renewals of the streams that are held."""
REFUSED_S: Final = 0.25
"""Seconds for which a project that has nothing left is refused without asking again: a flood costs little."""
HELD_S: Final = 0.25
"""Seconds for which such a refusal is held back: a client that asks again at once, whatever it is told, would
keep every processor busy."""
HELD_MAX: Final = 64
"""Refusals that are held back at once; further ones are told at once."""
STORED_S: Final = 30.0
"""Seconds between two counts of what a project stores; long counts are made less often."""
STORED_SHARE: Final = 50
"""A count may take this part of the time until the next one."""
KNOWN_MAX: Final = 1024
RATE_LIMIT: Final = "rate_limit_error"
_NONE: Final = Bounds()
_NOTHING: Final = Lease(0, 0, 0, 0, 0.0, 0.0, 0.0)
_EVER: Final = float("-inf")


@dataclass(slots=True)
class _Share:
    """One project's share at this replica."""

    lease: Lease = _NOTHING
    budget: int = 0
    good_until: float = _EVER
    refused_until: float = _EVER
    waiting: int = 0
    starting: int = 0
    streams: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    stored: int | None = None
    count_at: float = _EVER
    counting: asyncio.Lock = field(default_factory=asyncio.Lock)


class Quotas:
    """Refuses what a project may not use any more.  Every method may raise `RuntimeUnavailable`."""

    def __init__(
        self, runtime: Runtime, projects: Projects, replica: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        """`replica` is the name by which the supervisor tells replicas apart."""
        self._runtime = runtime
        self._projects = projects
        self._replica = replica
        self._now = now
        self._shares: OrderedDict[str, _Share] = OrderedDict()
        self._held = 0
        self._renewing: asyncio.Task[None] | None = None

    async def admit(self, call: Call) -> None:
        """Count a request that asks for work, and tell in the answer's headers what is left.

        Raises `ApiError` (429).
        """
        project = await self._projects.find(call.principal.project)
        bounds = project.quotas
        if bounds == _NONE:
            return
        share = self._share(project.id)
        if bounds.requests_per_minute is not None or bounds.tokens_per_minute is not None:
            try:
                await self._spend_request(share, project)
            finally:
                call.headers = (*call.headers, *_headers(bounds, share))
        if bounds.stored_bytes is not None:
            stored = await self._stored(share, project.id)
            if stored >= bounds.stored_bytes:
                raise _limited("stored_bytes", bounds.stored_bytes, STORED_S, "Erase responses to make room.")

    @asynccontextmanager
    async def starting(self, project_id: str) -> AsyncIterator[None]:
        """Around the creation of a response.  Raises `ApiError` (429) where as many run as may."""
        bound = (await self._projects.find(project_id)).quotas.running_responses
        if bound is None:
            yield
            return
        share = self._share(project_id)
        # What is being created here is not in the log yet; counted first, so that each counts the others.
        share.starting += 1
        try:
            counted = await self._runtime.reader.tally(
                categories=RESPONSES, states=RUNNING, tenant=project_id
            )
            if counted.get(project_id, 0) + share.starting > bound:
                raise _limited("running_responses", bound, 1.0, "Wait until one has ended.")
            yield
        finally:
            share.starting -= 1

    @asynccontextmanager
    async def streaming(self, project_id: str) -> AsyncIterator[None]:
        """Around a stream of events.  Raises `ApiError` (429) where as many are open as may."""
        project = await self._projects.find(project_id)
        bound = project.quotas.open_streams
        if bound is None:
            yield
            return
        share = self._share(project_id)
        async with share.turn:
            if share.streams >= share.lease.streams or self._now() >= share.good_until:
                await self._borrow(share, project, opening=1)
            if share.streams >= share.lease.streams:
                raise _limited("open_streams", bound, 1.0, "Close one first.")
            share.streams += 1
        self._renew_from_now_on()
        try:
            yield
        finally:
            share.streams -= 1

    async def aclose(self) -> None:
        """Hold nothing any more."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)

    # -- Requests ------------------------------------------------------------------------------------------

    async def _spend_request(self, share: _Share, project: ProjectState) -> None:
        if not (share.budget and self._now() < share.good_until):
            share.waiting += 1
            try:
                async with share.turn:
                    usable = share.budget and self._now() < share.good_until
                    if not usable and self._now() >= share.refused_until:
                        await self._borrow(share, project)
            finally:
                share.waiting -= 1
        if not share.budget:
            await self._hold_back()
            again_in = max(share.lease.again_in, REFUSED_S)
            bounds = project.quotas
            if bounds.requests_per_minute is not None and not share.lease.requests_left:
                raise _limited("requests_per_minute", bounds.requests_per_minute, again_in)
            raise _limited("tokens_per_minute", bounds.tokens_per_minute or 0, again_in)
        share.budget -= 1

    async def _hold_back(self) -> None:
        if self._held < HELD_MAX:
            self._held += 1
            try:
                await asyncio.sleep(HELD_S)
            finally:
                self._held -= 1

    async def _borrow(self, share: _Share, project: ProjectState, opening: int = 0) -> None:
        """Ask for a slice; what is left of the one before goes back."""
        bounds = project.quotas
        perhaps = min(SLICE_MAX, (bounds.requests_per_minute or TOKENS_ONLY) // SLICES)
        spare = min(SLICE_MAX, (bounds.open_streams or 0) // SLICES)
        ask = Ask(
            project=project.id,
            replica=self._replica,
            requests_per_minute=bounds.requests_per_minute,
            tokens_per_minute=bounds.tokens_per_minute,
            open_streams=bounds.open_streams,
            requests=share.waiting + perhaps if share.waiting else 0,
            unused=share.budget,
            streams_open=share.streams,
            streams=share.streams + opening + (spare if opening else 0),
        )
        share.budget = 0
        share.lease = await self._runtime.lend(ask)
        share.budget = share.lease.requests
        share.good_until = self._now() + SLICE_S
        if not share.budget and share.lease.again_in:
            share.refused_until = self._now() + min(REFUSED_S, share.lease.again_in)

    # -- Streams -------------------------------------------------------------------------------------------

    def _renew_from_now_on(self) -> None:
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew(), name="renew streams")

    async def _renew(self) -> None:
        """Say again what is held, until nothing is."""
        while any(share.streams for share in self._shares.values()):
            await asyncio.sleep(RENEW_S)
            for project_id, share in list(self._shares.items()):
                if share.streams:
                    try:
                        project = await self._projects.find(project_id)
                        async with share.turn:
                            await self._borrow(share, project)
                    except Exception as error:  # noqa: BLE001  (the next turn comes back to it)
                        log.warning("the streams of %s were not renewed: %s", project_id, error)

    # -- Bytes ---------------------------------------------------------------------------------------------

    async def _stored(self, share: _Share, project_id: str) -> int:
        """How much it was at the last count that succeeded.  Raises `StoreUnavailable` before the first."""
        if share.stored is not None and share.counting.locked():
            return share.stored  # Nobody waits for a long count.
        async with share.counting:
            if self._now() >= share.count_at:
                began = self._now()
                try:
                    share.stored = await self._count(project_id)
                except StoreUnavailable as error:
                    if share.stored is None:
                        raise
                    log.warning("what %s stores was not counted: %s", project_id, error)
                share.count_at = self._now() + max(STORED_S, STORED_SHARE * (self._now() - began))
            assert share.stored is not None, "it was counted, or that raised"
            return share.stored

    async def _count(self, project_id: str) -> int:
        total, after = 0, 0
        while True:
            size, next_ = await self._runtime.reader.stored(project_id, after=after)
            total += size
            if next_ is None:
                return total
            after = next_

    def _share(self, project_id: str) -> _Share:
        share = self._shares.setdefault(project_id, _Share())
        self._shares.move_to_end(project_id)
        while len(self._shares) > KNOWN_MAX:
            oldest, unused = self._shares.popitem(last=False)
            if unused.streams or unused.starting or unused.waiting:
                self._shares[oldest] = unused
                break
        return share


def _headers(bounds: Bounds, share: _Share) -> list[tuple[bytes, bytes]]:
    """OpenAI's headers for what is left."""
    lease = share.lease
    told: list[tuple[str, int, int, float]] = []
    if bounds.requests_per_minute is not None:
        left = lease.requests_left + share.budget
        told.append(("requests", bounds.requests_per_minute, left, lease.requests_full_in))
    if bounds.tokens_per_minute is not None:
        told.append(("tokens", bounds.tokens_per_minute, lease.tokens_left, lease.tokens_full_in))
    headers = []
    for what, limit, left, full_in in told:
        for name, value in (("limit", limit), ("remaining", left), ("reset", f"{math.ceil(full_in)}s")):
            headers.append((f"x-ratelimit-{name}-{what}".encode(), str(value).encode()))
    return headers


def _limited(quota: str, bound: int, again_in: float, remedy: str = "") -> ApiError:
    wait = max(1, math.ceil(again_in))
    words = quota.replace("_", " ")
    message = f"The project's quota of {bound} {words} is used up. {remedy or f'Try again in {wait} s.'}"
    return ApiError(
        Problem(
            429,
            message,
            RATE_LIMIT,
            "rate_limit_exceeded",
            param=quota,
            headers={"retry-after": str(wait)},
        )
    )
