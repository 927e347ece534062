"""The one writer: whoever has the turn takes all that waits and commits it in one transaction.

While the disk is quick an event loop takes the turn itself, once for all that its tasks submitted: no thread
has to win the interpreter from it, nor to be woken.  While the disk is slow, for what is large, and for those
whom an event loop keeps waiting, there is a thread: nothing that happens to a caller or to an event loop can
stop it.  See docs/adr/0002-sqlite-writer.md.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from eventstore.errors import EventStoreError, OutcomeUnknown, StoreUnavailable
from eventstore.events import Unit
from eventstore.sql import figures
from eventstore.sql.requests import Answer, Outcome, Request, weight
from eventstore.sql.room import Room
from eventstore.sql.sqlite_commit import SqliteCommitter

_log = logging.getLogger(__name__)

COMMIT_BYTES_MAX: Final = 1 << 20
COMMIT_REQUESTS_MAX: Final = 1024

_QUICK_BYTES_MAX: Final = 128 << 10
"""An event loop commits no more than that: others wait for it meanwhile."""
_QUICK_S: Final = 0.004
"""Where the commits of event loops take longer than this on average, the thread makes them for a while."""
_AVERAGED: Final = 8
"""Over so many, roughly: a single one takes long wherever processors are busy."""
_SLOW_FOR_S: Final = 1.0
"""How long that while is."""


@dataclass(slots=True, eq=False)
class _Waiting:
    request: Request
    size: int
    future: asyncio.Future[Answer] | ThreadFuture[Answer]
    room: Room | None = None

    @property
    def quick(self) -> bool:
        """Whether an event loop may commit it: behind what erases, the write-ahead log is emptied."""
        request = self.request
        erases = isinstance(request, Unit) and any(append.erase for append in request.appends)
        return self.size <= _QUICK_BYTES_MAX and not erases

    def settle(self, outcome: Outcome) -> None:
        """Tell the caller, unless it went away.  In the caller's own thread."""
        if self.room is not None:
            self.room.leave(self.size)
        if self.future.done():
            return
        if isinstance(outcome, EventStoreError):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class SqliteWriter:
    """Commits what many callers submit, from any event loop or thread of this process."""

    def __init__(self, committer: SqliteCommitter) -> None:
        self._committer = committer
        self._queue: deque[_Waiting] = deque()
        self._rooms: dict[asyncio.AbstractEventLoop, Room] = {}
        self._gate = threading.Lock()
        self._turn = threading.Lock()
        """Whoever holds it may commit."""
        self._coming: set[asyncio.AbstractEventLoop] = set()
        """Event loops that are going to take the turn."""
        self._average_s = 0.0
        self._slow_until = 0.0
        self._calls: SimpleQueue[bool] = SimpleQueue()
        """Wakes the thread; False ends it."""
        self._closed = False
        figures.waiting(self._queue.__len__)
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    async def submit(self, request: Request) -> Answer:
        """What became of the request, once it is durable.  A cancelled caller's may be committed still.

        Whoever makes a unit has checked it (`eventstore.unit.check_unit`), in whichever process.
        """
        size = weight(request)
        loop = asyncio.get_running_loop()
        room = self._rooms.get(loop)
        if room is None:
            room = self._rooms[loop] = Room()
        await room.enter(size)
        future: asyncio.Future[Answer] = loop.create_future()
        waiting = _Waiting(request, size, future, room)
        try:
            self._put(waiting)
        except StoreUnavailable:
            room.leave(size)
            raise
        if not waiting.quick or time.monotonic() < self._slow_until:
            self._calls.put(True)
        elif loop not in self._coming:
            self._coming.add(loop)
            loop.call_soon(self._take_turn, loop)
        return await future

    def submit_blocking(self, request: Request, timeout: float) -> Answer:
        """The same for a thread that runs no event loop."""
        future: ThreadFuture[Answer] = ThreadFuture()
        self._put(_Waiting(request, weight(request), future))
        self._calls.put(True)
        try:
            return future.result(timeout)
        except TimeoutError as error:
            raise OutcomeUnknown(f"no answer within {timeout} s") from error

    def close(self) -> None:
        """Commit what waits, then let go of the database.  Blocks; idempotent."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._calls.put(False)
        self._thread.join()

    def _put(self, waiting: _Waiting) -> None:
        with self._gate:  # Nothing may be put behind the end.
            if self._closed:
                raise StoreUnavailable("it is closed")
            self._queue.append(waiting)

    # -- in an event loop

    def _take_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._coming.discard(loop)
        if not self._turn.acquire(blocking=False):
            self._calls.put(True)  # Whoever has the turn may have looked before this was put.
            return
        try:
            if batch := self._gather(_QUICK_BYTES_MAX, lambda waiting: waiting.quick):
                self._settle(batch, self._timed_commit(batch), loop)
            if self._queue:
                self._calls.put(True)
        finally:
            self._turn.release()

    def _timed_commit(self, batch: list[_Waiting]) -> list[Outcome]:
        began = time.monotonic()
        outcomes = self._commit(batch)
        ended = time.monotonic()
        self._average_s += (ended - began - self._average_s) / _AVERAGED
        if self._average_s > _QUICK_S:
            self._average_s, self._slow_until = 0.0, ended + _SLOW_FOR_S
        return outcomes

    # -- in the thread

    def _run(self) -> None:
        open_ = True
        while open_:
            with suppress(Empty):
                open_ = self._calls.get(timeout=self._committer.tidy_after)
            with self._turn:
                self._committer.tidy()
            while self._queue:
                with self._turn:
                    if batch := self._gather(COMMIT_BYTES_MAX):
                        self._settle(batch, self._commit(batch))
        try:
            with self._turn:
                self._committer.close()
        except Exception:  # noqa: BLE001  # The commits are durable; whatever goes wrong now must not hang `close`.
            _log.exception("The log's database was not closed cleanly")

    # -- in whoever has the turn

    def _gather(self, bytes_max: int, takes: Callable[[_Waiting], bool] = lambda _: True) -> list[_Waiting]:
        """What waits, up to what a commit should hold or what is not taken; one whatever its size."""
        batch: list[_Waiting] = []
        size = 0
        while self._queue and size < bytes_max and len(batch) < COMMIT_REQUESTS_MAX and takes(self._queue[0]):
            batch.append(self._queue.popleft())
            size += batch[-1].size
        return batch

    def _commit(self, batch: list[_Waiting]) -> list[Outcome]:
        try:
            began = time.perf_counter()
            outcomes = self._committer.commit([waiting.request for waiting in batch])
            figures.SECONDS.observe(time.perf_counter() - began)
            figures.GROUP.observe(len(batch))
            return outcomes
        except Exception as error:  # noqa: BLE001  # A bug must reach those who wait, and must not stop the writer.
            _log.exception("A commit failed in a way that nobody foresaw")
            self._committer.let_go()
            return [OutcomeUnknown(repr(error))] * len(batch)

    def _settle(
        self, batch: list[_Waiting], outcomes: list[Outcome], here: asyncio.AbstractEventLoop | None = None
    ) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[tuple[_Waiting, Outcome]]] = {}
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.room is None or waiting.room.loop is here:
                waiting.settle(outcome)
            else:
                loops.setdefault(waiting.room.loop, []).append((waiting, outcome))
        for loop, settled in loops.items():
            try:
                loop.call_soon_threadsafe(_settle_all, settled)
            except RuntimeError:
                # That event loop is gone, and everybody with it who could wait for this.
                self._rooms.pop(loop, None)


def _settle_all(settled: list[tuple[_Waiting, Outcome]]) -> None:
    for waiting, outcome in settled:
        waiting.settle(outcome)
