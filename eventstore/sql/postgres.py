"""`EventStore` on Postgres: any number of processes read and write; the database decides between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from eventstore.errors import Fenced, LeaseLost, OutcomeUnknown, StoreUnavailable, StreamNotFound
from eventstore.events import Head, Recorded, Unit
from eventstore.sql.clock import wall_clock
from eventstore.sql.postgres_commit import PostgresCommitter
from eventstore.sql.postgres_leases import RENEW, BlockingLeases
from eventstore.sql.postgres_reader import PostgresLogReader
from eventstore.sql.postgres_writer import PostgresWriter
from eventstore.sql.rows import HEAD_COLUMNS, head_of
from eventstore.unit import check_unit, storable

_TAKE: Final = f"""
UPDATE streams SET epoch = epoch + 1, owner = $3, state = coalesce($4, state)
WHERE name = $1 AND epoch = $2 RETURNING {HEAD_COLUMNS}"""
_NOW: Final = "coalesce($1::timestamptz, clock_timestamp())"
_BURY: Final = (
    "INSERT INTO leases (holder, ttl_ms, buried, renewed_at)"
    " VALUES ($1, 0, true, coalesce($2::timestamptz, clock_timestamp()))"
    " ON CONFLICT (holder) DO UPDATE SET buried = true"
)
_FORGET: Final = """
DELETE FROM leases l WHERE l.renewed_at < coalesce($1::timestamptz, clock_timestamp()) - interval '1 day'
    AND NOT EXISTS (SELECT 1 FROM streams s WHERE s.owner = l.holder)"""
"""Of those whom nobody will ask for.  Whoever comes back after a day may renew, and is fenced."""
_EXPIRED: Final = f"""
SELECT l.holder FROM leases l
WHERE (l.buried OR greatest(l.renewed_at, $2) + l.ttl_ms * interval '1 millisecond' <= {_NOW})
    AND EXISTS (SELECT 1 FROM streams s WHERE s.owner = l.holder)"""
_SAVE_CURSOR: Final = (
    "INSERT INTO cursors AS c (name, position) VALUES ($1, $2)"
    " ON CONFLICT (name) DO UPDATE SET position = greatest(c.position, excluded.position)"
)


class PostgresEventStore(PostgresLogReader):
    """`EventStore` over a Postgres database that `rayspond migrate` prepared; connects when first used.

    `now` gives wall-clock milliseconds; `monotonic`, in tests, the seconds that leases are measured in, in
    place of the server's own clock.
    """

    def __init__(
        self,
        url: str,
        *,
        now: Callable[[], int] = wall_clock,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(url, now=now)
        self._monotonic = monotonic
        self._writer: PostgresWriter | None = None
        self._closed = False
        self._reached: datetime | None = None
        """By the server's clock, when it was reached for the first time, or again after it was away."""
        self._stalls = 0
        """How often it had stood still by then."""
        self._leases = BlockingLeases(self._database)

    @property
    def is_owner(self) -> bool:
        """See `EventStore`: the server writes."""
        return False

    async def append(self, unit: Unit) -> Sequence[Recorded]:
        """See `EventStore`."""
        check_unit(unit)
        if self._closed:
            raise StoreUnavailable("it is closed")
        if self._writer is None:
            self._writer = PostgresWriter(self._database, PostgresCommitter(now=self._now))
        return await self._writer.submit(unit)

    async def take(self, stream: str, *, epoch: int, owner: str | None, state: str | None = None) -> Head:
        """See `EventStore`."""
        if not storable(stream):
            raise StreamNotFound(stream)
        try:
            rows = await self._ask(_TAKE, stream, epoch, owner, state)
        except OutcomeUnknown:
            head = await self.head(stream)
            if head is not None and head.epoch == epoch + 1 and head.owner == owner:
                return head
            raise
        if rows:
            return head_of(rows[0])
        head = await self.head(stream)
        if head is None:
            raise StreamNotFound(stream)
        raise Fenced(stream, epoch, head.epoch)

    async def renew(self, holder: str, ttl: float) -> None:
        """See `EventStore`."""
        await self._reach()
        ((renewed,),) = await self._ask(RENEW, holder, round(ttl * 1000), self._clock())
        if not renewed:
            raise LeaseLost(holder)

    async def bury(self, holder: str) -> None:
        """See `EventStore`."""
        await self._ask(_BURY, holder, self._clock())
        await self._ask(_FORGET, self._clock())

    async def expired(self) -> Sequence[str]:
        """See `EventStore`.

        Whoever could not renew while the database was away, or stood still, gets a whole new term afterwards.
        """
        since = await self._reach()
        rows = await self._ask(_EXPIRED, self._clock(), since)
        if self._stalls != self._database.stalls:
            return []  # It has just gone on: who is to renew has not been heard yet.
        return sorted(holder for (holder,) in rows)

    async def save_cursor(self, name: str, position: int) -> None:
        """See `EventStore`."""
        await self._ask(_SAVE_CURSOR, name, position)

    def renew_lease_blocking(self, holder: str, ttl: float) -> None:
        """`renew`, for a plain thread: it works while this process's event loop is blocked.

        Raises `LeaseLost`, `StoreUnavailable`.
        """
        self._leases.renew(holder, ttl)

    async def aclose(self) -> None:
        """See `EventStore`."""
        self._closed = True
        if self._writer is not None:
            await self._writer.aclose()
        await asyncio.to_thread(self._leases.close)
        await super().aclose()

    async def _ask(self, query: str, *parameters: object) -> Sequence[Sequence[Any]]:
        try:
            return await self._database.fetch(query, *parameters, writes=True)
        except StoreUnavailable:
            self._reached = None
            raise

    async def _reach(self) -> datetime:
        reached = self._reached
        if reached is None or self._stalls != self._database.stalls:
            self._stalls = self._database.stalls
            ((reached,),) = await self._ask(f"SELECT {_NOW}", self._clock())
            self._reached = reached
        return reached

    def _clock(self) -> datetime | None:
        return None if self._monotonic is None else datetime.fromtimestamp(self._monotonic(), UTC)
