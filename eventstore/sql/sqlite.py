"""`EventStore` on SQLite: reads for itself, writes through whichever process owns the data directory.

This process is the owner or talks to it; when the owner dies, those who may own race for its place.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast

from eventstore.errors import EventStoreError, Fenced, OutcomeUnknown, StoreUnavailable, WrongExpectedVersion
from eventstore.events import Append, Head, Recorded, Unit
from eventstore.sql.clock import wall_clock
from eventstore.sql.owner import LogOwner
from eventstore.sql.owner_lock import ProcessIdentity, read_owner
from eventstore.sql.reader import SqliteLogReader
from eventstore.sql.remote_writer import BlockingWriter, OwnerHangs, RemoteWriter
from eventstore.sql.requests import Answer, Bury, Expired, Renew, Request, SaveCursor, Take
from eventstore.unit import check_unit, place_of

_log = logging.getLogger(__name__)

_HANG_S: Final = 10.0
"""A process may be starved this long on a busy machine and live; killing one is safe but costs its work."""
_BACKOFF_S: Final = (0.01, 0.5)
"""Between two looks for an owner: at first, and at most."""
_ANSWER_S: Final = (0.5, 4.0)
"""What an owner that is connected to may take to answer: at first, so that one that was halted is found soon,
and at most."""


class SqliteEventStore(SqliteLogReader):
    """`EventStore` over a data directory that processes of one machine share.

    `patience` is how many seconds a write may wait for an owner before it raises `StoreUnavailable`.  `now`
    gives wall-clock milliseconds, `monotonic` the seconds that leases are measured in; an owner's count.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        may_own: bool,
        patience: float = 30.0,
        now: Callable[[], int] = wall_clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(data_dir, now=now)
        self._data_dir, self._may_own, self._patience = Path(data_dir), may_own, patience
        self._monotonic = monotonic
        self._writer: LogOwner | RemoteWriter | None = None
        self._blocking = BlockingWriter(self._data_dir)
        self._election: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        data_dir: Path,
        *,
        may_own: bool,
        patience: float = 30.0,
        now: Callable[[], int] = wall_clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> SqliteEventStore:
        """The store, once somebody owns the directory: this process, if it may and nobody else does."""
        store = cls(data_dir, may_own=may_own, patience=patience, now=now, monotonic=monotonic)
        try:
            await store._find_writer(time.monotonic() + patience)
        except BaseException:
            await store.aclose()
            raise
        return store

    @property
    def is_owner(self) -> bool:
        """See `EventStore`."""
        return isinstance(self._writer, LogOwner)

    async def append(self, unit: Unit) -> Sequence[Recorded]:
        """See `EventStore`."""
        check_unit(unit)
        return cast("Sequence[Recorded]", await self._ask(unit))

    async def take(self, stream: str, *, epoch: int, owner: str | None, state: str | None = None) -> Head:
        """See `EventStore`."""
        return cast("Head", await self._ask(Take(stream, epoch, owner, state)))

    async def renew(self, holder: str, ttl: float) -> None:
        """See `EventStore`."""
        await self._ask(Renew(holder, ttl))

    async def bury(self, holder: str) -> None:
        """See `EventStore`."""
        await self._ask(Bury(holder))

    async def expired(self) -> Sequence[str]:
        """See `EventStore`."""
        return cast("Sequence[str]", await self._ask(Expired()))

    async def save_cursor(self, name: str, position: int) -> None:
        """See `EventStore`."""
        await self._ask(SaveCursor(name, position))

    def renew_lease_blocking(self, holder: str, ttl: float, *, timeout: float = 1.0) -> None:
        """`renew`, for a plain thread: it works while this process's event loop is blocked.

        Raises `LeaseLost`, or `StoreUnavailable` where no owner answered within `timeout` seconds.
        """
        writer, request = self._writer, Renew(holder, ttl)
        if isinstance(writer, LogOwner):
            writer.submit_blocking(request, timeout)
        else:
            self._blocking.submit(request, timeout)

    async def aclose(self) -> None:
        """See `EventStore`."""
        self._closed = True
        if self._election is not None:
            await asyncio.wait([self._election])
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.aclose()
        self._blocking.close()
        await super().aclose()

    # -- writing

    async def _ask(self, request: Request) -> Answer:
        deadline = time.monotonic() + self._patience
        uncertain: OutcomeUnknown | None = None
        while True:
            try:
                writer = await self._find_writer(deadline)
                return await writer.submit(request)
            except OutcomeUnknown as error:
                # Asking again is safe: what was committed stands in the way of being committed twice.
                uncertain = error
                if time.monotonic() > deadline:
                    raise
            except StoreUnavailable as error:
                if uncertain is not None:
                    raise OutcomeUnknown(error.reason) from error
                raise
            except (WrongExpectedVersion, Fenced) as error:
                if uncertain is None:
                    raise
                return await self._recognise(request, error)

    async def _recognise(self, request: Request, refusal: EventStoreError) -> Answer:
        """The answer to a request that was committed although nobody said so, or raise the refusal."""
        if isinstance(request, Unit) and isinstance(refusal, WrongExpectedVersion):
            return [await self._recognise_append(append, refusal) for append in request.appends]
        if isinstance(request, Take):
            head = await self.head(request.stream)
            if head is not None and head.epoch == request.epoch + 1 and head.owner == request.owner:
                return head
        raise refusal

    async def _recognise_append(self, append: Append, refusal: EventStoreError) -> Recorded:
        async for record in self.read(append.stream, after=append.expected):
            if record.payload is None:
                raise OutcomeUnknown(f"what followed version {append.expected} was erased") from refusal
            place = place_of(append, record)
            if place is None:
                break
            return place
        raise refusal

    # -- finding the writer

    async def _find_writer(self, deadline: float) -> LogOwner | RemoteWriter:
        while True:
            if self._closed:
                raise StoreUnavailable("it is closed")
            if self._writer is not None and self._writer.is_usable:
                return self._writer
            if self._election is None or self._election.done():
                # A task of its own: a cancelled caller must not leave a half-taken lock behind.
                self._election = asyncio.create_task(self._elect())
                self._election.add_done_callback(_look_at_outcome)
            done, _ = await asyncio.wait([self._election], timeout=max(0.0, deadline - time.monotonic()))
            if not done:
                raise StoreUnavailable(f"nobody owned {self._data_dir} for {self._patience} s")
            self._election.result()

    async def _elect(self) -> None:
        """Find the owner or become it."""
        pause, longest = _BACKOFF_S
        patience, most = _ANSWER_S
        silence = _Silence()
        hangs = isinstance(self._writer, RemoteWriter) and self._writer.hangs
        while not self._closed:
            if not hangs:
                try:
                    self._writer = await RemoteWriter.connect(self._data_dir, patience)
                    return
                except OwnerHangs:
                    hangs = True
                    patience = min(most, 2 * patience)
                except OSError:
                    pass  # Nobody listens: the owner died, starts, or never was.
            if self._may_own:
                await asyncio.to_thread(silence.judge, self._data_dir, hangs=hangs)
                self._writer = await asyncio.to_thread(
                    LogOwner.try_own, self._data_dir, now=self._now, monotonic=self._monotonic
                )
                if self._writer is not None:
                    return
            hangs = False
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(longest, 2 * pause)


class _Silence:
    """How long one and the same owner has answered nobody."""

    def __init__(self) -> None:
        self._owner: ProcessIdentity | None = None
        self._since = time.monotonic()

    def judge(self, data_dir: Path, *, hangs: bool) -> None:
        """Kill an owner that does not answer: if it is stopped, at once; else after a while."""
        owner = read_owner(data_dir)
        if owner != self._owner:
            self._owner, self._since = owner, time.monotonic()
        if owner is None:
            return
        if (hangs and owner.is_stopped) or time.monotonic() - self._since > _HANG_S:
            _log.warning("The owner of the log, process %s, does not answer: ending it", owner.pid)
            owner.kill()


def _look_at_outcome(election: asyncio.Task[None]) -> None:
    """Everybody who waited for it may be gone."""
    if not election.cancelled():
        election.exception()
