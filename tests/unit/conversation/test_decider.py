"""The rules of conversations, one by one."""

from __future__ import annotations

import pytest

from runtime.conversation import commands as c
from runtime.conversation import events as e
from runtime.conversation.aggregate import CONVERSATION
from runtime.conversation.decider import ITEMS_MAX
from runtime.conversation.errors import ConversationFull, ConversationLocked, UnknownConversation
from runtime.conversation.state import REMOVED_MAX
from runtime.response.items import input_id
from tests.unit.conversation.kit import (
    ATTACH,
    ATTACHED,
    CREATE,
    ERASE,
    ERASED,
    ID,
    OTHER,
    OURS,
    RESPONSE,
    add,
    created,
    detach,
    given,
    item,
    remove,
)

CHANGE = c.ChangeMetadata(ID, OURS, {"topic": "rivers"}, "key_1")


def test_it_begins_once() -> None:
    given().when(CREATE).then(created())


def test_items_are_added_at_the_end_and_once() -> None:
    given(created(item(1))).when(add(item(2), item(3))).then(e.ItemsAdded((item(2), item(3)), "key_1"))
    given(created(item(1))).when(add()).then_nothing()
    added = created(item(1)), e.ItemsAdded((item(2), item(3)), "key_1")
    given(*added).when(add(item(2), item(3))).then_nothing()
    given(*added, e.ItemRemoved(item(2)["id"], None)).when(add(item(2), item(3))).then_nothing()


def test_an_item_is_removed_and_what_is_not_there_is_removed_already() -> None:
    given(created(item(1))).when(remove(1)).then(e.ItemRemoved(item(1)["id"], "key_1"))
    given(created(item(1))).when(remove(2)).then_nothing()


def test_where_removed_items_stood_is_known_for_a_while() -> None:
    numbers = range(1, REMOVED_MAX + 4)
    events: list[e.Event] = [
        created(*map(item, numbers)),
        *(e.ItemRemoved(item(n)["id"], None) for n in (3, 1)),
    ]
    state = CONVERSATION.fold(events, CONVERSATION.initial)
    assert state.removed == {item(3)["id"]: 1, item(1)["id"]: 0}
    gone = [e.ItemRemoved(item(n)["id"], None) for n in numbers]
    state = CONVERSATION.fold(gone, state)
    assert len(state.removed) == REMOVED_MAX
    assert state.items == ()
    assert set(state.removed.values()) == {0}


def test_metadata_is_replaced() -> None:
    given(created()).when(CHANGE).then(e.MetadataChanged({"topic": "rivers"}, "key_1"))


def test_one_response_at_a_time() -> None:
    given(created()).when(ATTACH).then(ATTACHED)
    given(created(), ATTACHED).when(c.AttachResponse(ID, OURS, OTHER)).then_refused(ConversationLocked)
    done = e.ResponseDetached(RESPONSE)
    given(created(), ATTACHED, done).when(c.AttachResponse(ID, OURS, OTHER)).then(e.ResponseAttached(OTHER))


@pytest.mark.parametrize("command", [add(item(2)), remove(1), ERASE])
def test_while_a_response_runs_its_items_stay_as_they_are(command: c.Command) -> None:
    given(created(item(1)), ATTACHED).when(command).then_refused(ConversationLocked)


def test_while_a_response_runs_metadata_may_change() -> None:
    given(created(), ATTACHED).when(CHANGE).then(e.MetadataChanged({"topic": "rivers"}, "key_1"))


def test_a_response_that_ends_leaves_its_items() -> None:
    left = (item(2), item(3))
    given(created(item(1)), ATTACHED).when(detach(*left)).then(e.ResponseDetached(RESPONSE, left))


def test_a_response_that_is_not_attached_leaves_nothing() -> None:
    given(created()).when(detach(item(2))).then_nothing()
    given(created(), ATTACHED).when(detach(item(2), response_id=OTHER)).then_nothing()
    given().when(detach(item(2))).then_nothing()


def test_an_item_that_comes_back_gets_an_id_of_its_own() -> None:
    """A client may send back what it read, even twice; every item can still be named."""
    again = item(1) | {"id": input_id(RESPONSE, "message", 1)}
    left = (item(2), item(1), item(2))
    third = item(2) | {"id": input_id(RESPONSE, "message", 2)}
    given(created(item(1)), ATTACHED).when(detach(*left)).then(
        e.ResponseDetached(RESPONSE, (item(2), again, third))
    )


def test_nothing_of_an_erased_one_is_left() -> None:
    given(created(item(1))).when(ERASE).then(ERASED)
    state = CONVERSATION.fold([created(item(1)), ERASED], CONVERSATION.initial)
    assert (state.items, state.metadata, state.belongs_to(OURS)) == ((), {}, False)
    given(created(), ERASED).when(detach(item(2))).then_nothing()


@pytest.mark.parametrize("command", [add(item(2)), remove(1), CHANGE, ATTACH])
def test_what_is_unknown_foreign_or_erased_is_refused_alike(command: c.Command) -> None:
    theirs = e.ConversationCreated(ID, "theirs", None, 0, {}, (item(1),))
    for past in ((), (theirs,), (created(item(1)), ERASED)):
        given(*past).when(command).then_refused(UnknownConversation)


def test_a_full_one_takes_no_more() -> None:
    many = tuple(item(number) for number in range(ITEMS_MAX))
    given(created(*many)).when(add(item(ITEMS_MAX))).then_refused(ConversationFull)
    given(created(*many)).when(ATTACH).then_refused(ConversationFull)
    given(created(*many[1:])).when(add(item(ITEMS_MAX))).then(e.ItemsAdded((item(ITEMS_MAX),), "key_1"))
