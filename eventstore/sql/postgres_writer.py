"""The writer of one process: a task that takes all that waits and commits it in one call.

It is nobody's caller: a cancelled caller, or a neighbour's guilty unit, cannot stop it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from eventstore.errors import EventStoreError, OutcomeUnknown, StoreUnavailable
from eventstore.events import Recorded, Unit
from eventstore.sql import figures
from eventstore.sql.postgres_commit import Outcome, PostgresCommitter, streams_of
from eventstore.sql.postgres_connection import COMMIT_S, LOST, PostgresDatabase, close
from eventstore.sql.requests import weight
from eventstore.sql.room import Room

_log = logging.getLogger(__name__)

COMMIT_BYTES_MAX: Final = 1 << 20
COMMIT_UNITS_MAX: Final = 256


@dataclass(slots=True, eq=False)
class _Waiting:
    unit: Unit
    size: int
    future: asyncio.Future[Sequence[Recorded]]

    def settle(self, outcome: Outcome) -> None:
        """Tell the caller, unless it went away."""
        if self.future.done():
            return
        if isinstance(outcome, EventStoreError):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)

    @property
    def touches(self) -> set[tuple[str, ...]]:
        """What no other unit of the same call may touch: its streams and its claims."""
        claims = {(claim.scope, claim.key) for claim in self.unit.claims}
        return claims.union((name,) for name in streams_of(self.unit))


class PostgresWriter:
    """Commits what callers of one event loop submit, over a connection of its own."""

    def __init__(self, database: PostgresDatabase, committer: PostgresCommitter) -> None:
        self._database, self._committer = database, committer
        self._connection: asyncpg.Connection | None = None
        self._waiting: deque[_Waiting] = deque()
        self._room = Room()
        self._wake = asyncio.Event()
        self._closed = False
        figures.waiting(lambda: len(self._waiting))
        # Held here: a task that nobody refers to may vanish.
        self._task = asyncio.create_task(self._run(), name="log-writer")

    async def submit(self, unit: Unit) -> Sequence[Recorded]:
        """Where a sound unit came to lie.  A cancelled caller's unit may be committed still."""
        size = weight(unit)
        await self._room.enter(size)
        try:
            if self._closed:
                raise StoreUnavailable("it is closed")
            future: asyncio.Future[Sequence[Recorded]] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Waiting(unit, size, future))
            self._wake.set()
        except BaseException:
            self._room.leave(size)
            raise
        return await future

    async def aclose(self) -> None:
        """Commit what waits, then let go of the connection."""
        self._closed = True
        self._wake.set()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._waiting or not self._closed:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            group = self._gather()
            began = time.monotonic()
            outcomes = await self._commit([waiting.unit for waiting in group])
            figures.SECONDS.observe(time.monotonic() - began)
            figures.GROUP.observe(len(group))
            for waiting, outcome in zip(group, outcomes, strict=True):
                self._room.leave(waiting.size)
                waiting.settle(outcome)
        if self._connection is not None:
            await close(self._connection)

    def _gather(self) -> list[_Waiting]:
        """What one call takes: in the order in which it came, of each stream one unit, at most 1 MiB."""
        group: list[_Waiting] = []
        touched: set[tuple[str, ...]] = set()
        left: deque[_Waiting] = deque()
        size = 0
        while self._waiting and len(group) < COMMIT_UNITS_MAX:
            waiting = self._waiting.popleft()
            if group and size + waiting.size > COMMIT_BYTES_MAX:
                self._waiting.appendleft(waiting)
                break
            touches = waiting.touches
            if touched.isdisjoint(touches):
                group.append(waiting)
                size += waiting.size
            else:
                left.append(waiting)
            # Also those of units that are left: what comes behind them must not overtake them.
            touched |= touches
        left.extend(self._waiting)
        self._waiting = left
        return group

    async def _commit(self, units: Sequence[Unit]) -> Sequence[Outcome]:
        try:
            connection = await self._connected()
        except (*LOST, EventStoreError) as error:
            refusal = error if isinstance(error, EventStoreError) else self._unreachable(error)
            return [refusal] * len(units)
        try:
            return await self._committer.commit(connection, units)
        except LOST as error:
            failure: EventStoreError = self._database.commit_error(error)
        except Exception as error:  # noqa: BLE001  # A bug must reach those who wait, and must not stop the writer.
            _log.exception("A commit failed in a way that nobody foresaw")
            failure = OutcomeUnknown(repr(error))
        self._let_go()
        return [failure] * len(units)

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is not None and self._connection.is_closed():
            self._let_go()
        if self._connection is None:
            self._connection = await self._database.connect(COMMIT_S)
        return self._connection

    def _unreachable(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(self._database.remedy(error))

    def _let_go(self) -> None:
        """Never again on this connection; and another database may answer on the next one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
        self._committer.forget()
