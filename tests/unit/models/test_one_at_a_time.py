"""Items that an upstream mixes: told one after the other, and held within bounds."""

import pytest

from runtime.model import ItemClosed, ItemOpened, TextDelta
from runtime.models.one_at_a_time import HELD_CHARS, HELD_ITEMS, OneAtATime

OPENED = ItemOpened("message")


def test_mixed_items_are_told_in_the_order_they_began() -> None:
    items = OneAtATime()
    first, second = items.open(OPENED), items.open(OPENED)
    items.say(second, TextDelta, "b")
    items.close(second)
    items.say(first, TextDelta, "a")
    items.close(first)
    closed = ItemClosed(None)
    assert items.take() == [OPENED, TextDelta("a"), closed, OPENED, TextDelta("b"), closed]


def test_what_waits_has_a_bound_in_characters() -> None:
    items = OneAtATime()
    items.open(OPENED)
    waiting = items.open(OPENED)
    items.say(waiting, TextDelta, "x" * HELD_CHARS)
    with pytest.raises(ValueError, match="characters of items out of order"):
        items.say(waiting, TextDelta, "x")


def test_what_waits_has_a_bound_in_items() -> None:
    items = OneAtATime()
    for _ in range(1 + HELD_ITEMS):
        items.open(OPENED)
    with pytest.raises(ValueError, match="1024 items out of order"):
        items.open(OPENED)
