"""Puts items that an upstream mixes into the port's order: one open at a time, in the order they began."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from runtime.model import ItemClosed, ItemOpened, ModelEvent
from runtime.models.json_text import REPLACEMENT, has_surrogate, whole

Say = Callable[[str], ModelEvent]

# What may wait for its turn, in characters and in items; no upstream mixes more than a few calls.
HELD_CHARS = 4 * 1024 * 1024
HELD_ITEMS = 1024


@dataclass(slots=True)
class OpenItem:
    """An item that has begun."""

    opened: ItemOpened
    held: list[ModelEvent] = field(default_factory=list)
    """What it says while another one is live."""
    closed: ItemClosed | None = None
    half: str = ""
    """A high surrogate, waiting for the other half of its pair in the next delta."""
    half_say: Say | None = None


class OneAtATime:
    """The first item that is not closed is live: it streams.  Later ones are held until their turn."""

    def __init__(self) -> None:
        self._out: list[ModelEvent] = []
        self._live: OpenItem | None = None
        self._waiting: deque[OpenItem] = deque()
        self._held_chars = 0

    @property
    def crowded(self) -> bool:
        """Whether an item waits for the live one to close."""
        return bool(self._waiting)

    def open(self, opened: ItemOpened) -> OpenItem:
        """A new item begins.  Raises `ValueError` where too many wait."""
        item = OpenItem(opened)
        if self._live is None:
            self._live = item
            self._out.append(opened)
        elif len(self._waiting) == HELD_ITEMS:
            raise ValueError(f"more than {HELD_ITEMS} items out of order")
        else:
            self._waiting.append(item)
        return item

    def say(self, item: OpenItem, say: Say, text: str) -> None:
        """`item` says more.  Raises `ValueError` where it is closed or too much waits."""
        if item.closed is not None:
            raise ValueError("more of an item that was whole")
        if item.half or not text.isascii():
            text = self._mend(item, say, text)
        if not text:
            return
        if item is self._live:
            self._out.append(say(text))
            return
        self._held_chars += len(text)
        if self._held_chars > HELD_CHARS:
            raise ValueError(f"more than {HELD_CHARS} characters of items out of order")
        item.held.append(say(text))

    def close(self, item: OpenItem, encrypted_content: str | None = None) -> None:
        """`item` is whole: the next one's turn, once it was the live one.  Closing twice changes nothing."""
        if item.closed is not None:
            return
        self._flush_half(item)
        item.closed = ItemClosed(encrypted_content)
        while self._live is not None and self._live.closed is not None:
            self._out.append(self._live.closed)
            self._live = self._waiting.popleft() if self._waiting else None
            if self._live is not None:
                self._out += [self._live.opened, *self._live.held]
                self._live.held.clear()

    def add(self, event: ModelEvent) -> None:
        """An event that belongs to no item."""
        self._out.append(event)

    def take(self) -> list[ModelEvent]:
        """What may be told by now."""
        out, self._out = self._out, []
        return out

    def _mend(self, item: OpenItem, say: Say, text: str) -> str:
        """`text` joined with the half before it, and without a half at its end."""
        if item.half and item.half_say is not say and item.half_say is not None:
            self._flush_half(item)
        text, item.half = item.half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, item.half, item.half_say = text[:-1], text[-1], say
        return whole(text) if has_surrogate(text) else text

    def _flush_half(self, item: OpenItem) -> None:
        """The other half never came."""
        if item.half and item.half_say is not None:
            item.half = ""
            (self._out if item is self._live else item.held).append(item.half_say(REPLACEMENT))
