"""The one writer's thread: it takes all that waits and commits it in one transaction.

A thread, not a task: nothing that happens to a caller, or to the event loop, can stop it.  See
docs/adr/0002-sqlite-writer.md.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import Future as ThreadFuture
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from eventstore.errors import EventStoreError, OutcomeUnknown, StoreUnavailable
from eventstore.events import Unit
from eventstore.sql import figures
from eventstore.sql.requests import Answer, Outcome, Request, weight
from eventstore.sql.room import Room
from eventstore.sql.sqlite_commit import SqliteCommitter
from eventstore.unit import check_unit

_log = logging.getLogger(__name__)

COMMIT_BYTES_MAX: Final = 1 << 20
COMMIT_REQUESTS_MAX: Final = 1024


@dataclass(slots=True, eq=False)
class _Waiting:
    request: Request
    size: int
    future: asyncio.Future[Answer] | ThreadFuture[Answer]
    room: Room | None = None

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
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._rooms: dict[asyncio.AbstractEventLoop, Room] = {}
        self._gate = threading.Lock()
        self._closed = False
        figures.waiting(self._queue.qsize)
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    async def submit(self, request: Request) -> Answer:
        """What became of the request, once it is durable.  A cancelled caller's may be committed still."""
        if isinstance(request, Unit):
            check_unit(request)
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
        return await future

    def submit_blocking(self, request: Request, timeout: float) -> Answer:
        """The same for a thread that runs no event loop."""
        future: ThreadFuture[Answer] = ThreadFuture()
        self._put(_Waiting(request, weight(request), future))
        try:
            return future.result(timeout)
        except TimeoutError as error:
            raise OutcomeUnknown(f"no answer within {timeout} s") from error

    def close(self) -> None:
        """Commit what waits, then let go of the database.  Blocks; idempotent."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _put(self, waiting: _Waiting) -> None:
        with self._gate:  # Nothing may be put behind the end.
            if self._closed:
                raise StoreUnavailable("it is closed")
            self._queue.put(waiting)

    # -- in the thread

    def _run(self) -> None:
        open_ = True
        while open_:
            batch, open_ = self._gather()
            if batch:
                self._settle(batch, self._commit(batch))
            else:
                self._committer.tidy()
        try:
            self._committer.close()
        except Exception:  # noqa: BLE001  # The commits are durable; whatever goes wrong now must not hang `close`.
            _log.exception("The log's database was not closed cleanly")

    def _gather(self) -> tuple[list[_Waiting], bool]:
        """All that waits, up to what a commit should hold; none when it is time to tidy.  False ends it."""
        try:
            first = self._queue.get(timeout=self._committer.tidy_after)
        except Empty:
            return [], True
        if first is None:
            return [], False
        batch, size = [first], first.size
        while size < COMMIT_BYTES_MAX and len(batch) < COMMIT_REQUESTS_MAX:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            if item is None:
                return batch, False
            batch.append(item)
            size += item.size
        return batch, True

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

    def _settle(self, batch: list[_Waiting], outcomes: list[Outcome]) -> None:
        loops: dict[asyncio.AbstractEventLoop, list[tuple[_Waiting, Outcome]]] = {}
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.room is None:
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
