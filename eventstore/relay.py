"""The relay: everything that was committed, published for subscribers in the order of the log.

It follows the live bus and heals from the log.  It may lag but never skips a position; after a crash it goes
on from its cursor, so subscribers see every event at least once, repeats under the same id.  Only what was
damaged is left out, and named: it would keep the others waiting for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final, Protocol

from eventstore.damaged import Damaged
from eventstore.errors import EventStoreError, StoreUnavailable
from eventstore.events import Batch, Record
from eventstore.held import HELD_MAX, Held
from eventstore.nats_subjects import UnsafeToken
from eventstore.pages import FIRST, next_page, payload_size
from eventstore.ports import BusUnavailable, CaptureUnavailable, EventStore, PublicBus, Subscription

PAGE: Final = 500
WINDOW_MESSAGES: Final = 256
WINDOW_BYTES: Final = 1 << 20
GATHER_SECONDS: Final = 0.01
"""Least time between two windows, unless one is full: under load many positions share one exchange with the
server, and what comes a little out of order need not be read from the log."""
SAVE_SECONDS: Final = 1.0
SAVE_POSITIONS: Final = 1000
RETRY_SECONDS_MAX: Final = 2.0
PROBE_SECONDS: Final = 5.0
"""How often a stream that took nothing is tried again."""
MARK_SECONDS: Final = 0.1
MARKS_MAX: Final = 1024
"""Moments at which the log's newest position is noted, so that the lag can be told in seconds."""

logger = logging.getLogger(__name__)

Message = tuple[str, bytes, Mapping[str, str]]
Compose = Callable[[Batch, str, int], Sequence[Message]]
"""The messages of a batch, given the log's incarnation and the bytes that one may have, headers included.
Raises `UnsafeToken`."""
Render = Callable[[Record], Awaitable[Batch | None]]
"""The batch behind a record (`eventstore.renders.Renders.batch`)."""


class Unrenderable(EventStoreError):
    """A record that nobody here can show: it is waited for, because skipping is forbidden."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(position, reason)
        self.position, self.reason = position, reason

    def __str__(self) -> str:
        return (
            f"position {self.position} of the log cannot be shown ({self.reason}); "
            "nothing behind it is published until this version, or a later one, can show it"
        )


class LiveTap(Protocol):
    """A live bus that can be heard as a whole."""

    def tap(self) -> AbstractAsyncContextManager[Subscription]:
        """Hear all channels; as lossy as a subscription."""
        ...


class Relay:
    """Publishes the log, position by position.  One at a time for a log: its owner sees to that."""

    def __init__(
        self,
        store: EventStore,
        live: LiveTap,
        public: PublicBus,
        render: Render,
        compose: Compose,
        name: str = "relay",
    ) -> None:
        self._store, self._live, self._public = store, live, public
        self._render, self._compose = render, compose
        self.damaged = Damaged(store)
        self._name = name
        self._incarnation = ""
        self._position = 0
        self._newest = 0
        self._held = Held(_now)
        self._window: list[Message] = []
        self._window_bytes = 0
        self._window_position = 0
        self._sent_at = 0.0
        self._saved, self._saved_at = 0, 0.0
        self._behind = True
        self._page = FIRST
        self._doubted = False
        """Whether what is held has waited so long that it may have been erased meanwhile."""
        self._marks: deque[tuple[int, float]] = deque()
        self._capture_from: int | None = None
        self._captured_at = 0.0
        self._probe: asyncio.Task[bool] | None = None
        self._problem: str | None = None

    @property
    def position(self) -> int:
        """Up to here everything was published."""
        return self._position

    @property
    def lag(self) -> int:
        """How many positions that the relay knows of are not published yet."""
        return max(0, self._newest - self._position)

    @property
    def lag_seconds(self) -> float:
        """For how long the oldest position that is not published yet has been known; 0 where none is."""
        return _now() - self._marks[0][1] if self._marks and self.lag else 0.0

    @property
    def capture_away(self) -> float:
        """For how many seconds the stream has taken nothing although the server answers; 0 while it does."""
        return 0.0 if self._capture_from is None else _now() - self._captured_at

    @property
    def capture_lag(self) -> int:
        """How many positions the stream lacks; more than `lag` while it takes nothing."""
        behind = self._position if self._capture_from is None else self._capture_from
        return max(0, self._newest - behind)

    @property
    def healthy(self) -> bool:
        """Whether nothing hinders it now."""
        return self._problem is None

    @property
    def problem(self) -> str | None:
        """What hinders it, for people, or None."""
        return self._problem

    async def run(self) -> None:
        """Relay until cancelled; then save the cursor."""
        delay, loaded = 0.0, False
        try:
            async with self._live.tap() as live:
                while True:
                    try:
                        if not loaded:
                            await self._load()
                            loaded = True
                        await self._turn(live)
                        delay = 0.0
                    except Exception as error:  # noqa: BLE001 (skipping is forbidden, so it stays and says why)
                        self._hindered(error)
                        self._doubted = True
                        delay = min(max(2 * delay, 0.05), RETRY_SECONDS_MAX)
                        await asyncio.sleep(delay)
        finally:
            await self._end(loaded)

    async def _load(self) -> None:
        self._incarnation = await self._store.incarnation()
        self._position = self._saved = await self._store.cursor(self._name)
        self._note(self._position)

    async def _turn(self, live: Subscription) -> None:
        """Publish what is next, or wait for it, or look for it in the log."""
        self._forget_window()
        await self._follow_probe()
        try:
            await self._proceed(live)
        except Unrenderable:
            await self._send()  # What comes before it is out, at least.
            raise
        await self._save_if_due()

    async def _proceed(self, live: Subscription) -> None:
        if self._behind:
            # What was heard meanwhile need not be shown anew, which takes longest: else it stays behind.
            for _ in range(HELD_MAX):
                if (heard := await live.next(0)) is None:
                    break
                self._hold(heard)
        if self._position + 1 in self._held and not (self._doubted or self._behind):
            await self._gather(live)
            await self._publish_held()
        elif self._behind or self._doubted:
            await self._heal(self._page)
        elif self._held.hole_is_old:
            # Not what lies behind all that was heard: it will be heard in a moment.
            await self._heal(min(self._page, self._held.newest - self._position), whole=False)
        elif (heard := await live.next(self._held.rest)) is not None:
            self._hold(heard)
        else:
            self._behind = not self._held

    async def _gather(self, live: Subscription) -> None:
        """Hear what else comes shortly after the last window."""
        until = self._sent_at + GATHER_SECONDS
        while len(self._held) < WINDOW_MESSAGES and (rest := until - _now()) > 0:
            if (heard := await live.next(rest)) is not None:
                self._hold(heard)

    def _hold(self, batch: Batch) -> None:
        if batch.position <= self._position:
            self._held.came_late(batch.position)
            return
        self._note(batch.position)
        if self._held.keep(batch):
            self._held.look(self._position + 1)
        else:
            self._behind = True

    def _note(self, position: int) -> None:
        """Remember that the log has come that far, and when that was heard of."""
        if position <= self._newest:
            return
        self._newest = position
        now = _now()
        # Where all marks are taken, the oldest ones are those that count.
        if len(self._marks) < MARKS_MAX and (not self._marks or now - self._marks[-1][1] >= MARK_SECONDS):
            self._marks.append((position, now))

    async def _publish_held(self) -> None:
        position = self._position
        while (batch := self._held.get(position + 1)) is not None:
            position += 1
            if await self._add(position, batch):
                break
        await self._send()

    async def _heal(self, limit: int, *, whole: bool = True) -> None:
        """Publish a page of the log; batches that were heard need not be rendered.

        `whole` is for what may have no end that was heard of: then there may be more.
        """
        page, more = await self.damaged.page(self._position, limit)
        # A page that is short although there is more was cut at what cannot be read.
        self._behind = more and (whole or len(page) < limit)
        if limit == self._page:
            size = sum(payload_size(record.payload) for _, record in page if record is not None)
            self._page = next_page(self._page, size, PAGE)
        if page:
            self._note(page[-1][0])
        filled = {position for position, _ in page if position not in self._held}
        for position, record in page:
            await self._add(position, None if record is None else await self._batch_of(record))
        await self._send()
        self._doubted = False
        self._unhindered()
        self._held.looked_up(self._position + 1, filled if page else None)

    async def _batch_of(self, record: Record) -> Batch | None:
        """What the record showed, heard or rendered; None where that is nothing."""
        batch = self._held.get(record.position) if record.payload is not None else None
        if batch is None and (batch := await self._rendered(record)) is not None:
            self._held.keep(batch)  # Should publishing fail, it need not be rendered again.
        return batch

    async def _rendered(self, record: Record) -> Batch | None:
        if record.stream in self.damaged:
            return None
        try:
            return await self._render(record)
        except StoreUnavailable:
            raise
        except Exception as error:
            if await self.damaged.explains(record):
                return None
            raise Unrenderable(record.position, _text(error)) from error

    # One window of messages, and where publishing it leads.

    async def _add(self, position: int, batch: Batch | None) -> bool:
        """Add a position to the window; True where that filled and sent it."""
        if batch is not None and batch.count:
            try:
                messages = self._compose(batch, self._incarnation, self._public.payload_max)
            except UnsafeToken as error:
                logger.error("position %d has no subject and stays unpublished: %s", position, error)
                messages = ()
            except Exception as error:
                raise Unrenderable(position, _text(error)) from error
            self._window.extend(messages)
            self._window_bytes += sum(len(payload) for _, payload, _ in messages)
        self._window_position = position
        if len(self._window) < WINDOW_MESSAGES and self._window_bytes < WINDOW_BYTES:
            return False
        await self._send()
        return True

    async def _send(self) -> None:
        if self._window_position <= self._position:
            return
        if self._window:
            await self._publish(self._window)
        for position in range(self._position + 1, self._window_position + 1):
            self._held.release(position)
        self._position = self._window_position
        self._sent_at = _now()
        while self._marks and self._marks[0][0] <= self._position:
            self._marks.popleft()
        self._held.went_on(self._position + 1)
        self._forget_window()
        self._unhindered()

    def _forget_window(self) -> None:
        """Begin a new window: the last one was sent, or an error interrupted it and it is made again."""
        self._window, self._window_bytes, self._window_position = [], 0, self._position

    # The stream may be away while listeners are not.

    async def _publish(self, messages: Sequence[Message]) -> None:
        if self._capture_from is not None:
            await self._public.publish(messages, capture=False)
            return
        try:
            await self._public.publish(messages)
        except CaptureUnavailable as error:
            # Listeners have got them; only the stream will need them again, from here on.
            self._capture_from, self._captured_at = self._position, _now()
            self._hindered(error)
            self._probe = asyncio.create_task(self._try_capture(messages[error.first]))

    async def _try_capture(self, message: Message) -> bool:
        """Offer the stream what it refused until it takes it."""
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await self._public.publish([message])
            except BusUnavailable as error:
                self._hindered(error)
            else:
                return True

    async def _follow_probe(self) -> None:
        if self._probe is None or not self._probe.done():
            return
        await self._probe
        self._probe = None
        assert self._capture_from is not None
        logger.warning("the stream takes events again; publishing anew from %d", self._capture_from + 1)
        self._position, self._capture_from = self._capture_from, None
        self._marks.appendleft((self._newest, _now()))
        self._behind = True
        self._forget_window()

    # The cursor.

    async def _save_if_due(self) -> None:
        captured = self._position if self._capture_from is None else self._capture_from
        if captured <= self._saved:
            return
        if captured - self._saved >= SAVE_POSITIONS or _now() - self._saved_at >= SAVE_SECONDS:
            await self._store.save_cursor(self._name, captured)
            self._saved, self._saved_at = captured, _now()

    async def _end(self, loaded: bool) -> None:
        if loaded:
            self._saved_at = 0.0
            save = asyncio.create_task(self._save_if_due())
            while not save.done():  # However often this is cancelled; the store bounds it.
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([save])
            if (error := save.exception()) is not None:
                logger.warning("the cursor was not saved, up to a second will be repeated: %s", error)
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait([self._probe])

    def _unhindered(self) -> None:
        if self._capture_from is None:
            self._problem = None

    def _hindered(self, error: Exception) -> None:
        problem = _text(error)
        if problem != self._problem:
            known = isinstance(error, (EventStoreError, BusUnavailable))
            logger.warning("the relay waits: %s", problem, exc_info=None if known else error)
        self._problem = problem


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _now() -> float:
    return asyncio.get_running_loop().time()
