"""The rules of conversations: what happens if we obey a command now?

What is already so decides nothing, so that a repeated command writes nothing.  While a response runs in a
conversation its items stay as they are: they are what the response was asked, also after a crash.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, assert_never

from runtime.conversation import commands as c
from runtime.conversation import events as e
from runtime.conversation.errors import ConversationFull, ConversationLocked, UnknownConversation
from runtime.conversation.state import ConversationState
from runtime.response.items import input_id

ITEMS_MAX: Final = 20_000
"""Items beyond which nothing is added; all of them are told to a model."""


def decide(command: c.Command, state: ConversationState) -> list[e.Event]:
    """The events that follow from `command`.  Raises a `runtime.aggregate.Refused`."""
    if isinstance(command, c.CreateConversation):
        return [] if state.id else [_created(command)]
    if isinstance(command, c.DetachResponse):
        return _detach(command, state)
    if isinstance(command, c.EraseConversation) and state.erased:
        return []
    if not state.belongs_to(command.project):
        raise UnknownConversation(command.conversation)
    match command:
        case c.AddItems():
            return _add(command, state)
        case c.RemoveItem():
            if state.item(command.item_id) is None:
                return []
            _refuse_if_locked(state)
            return [e.ItemRemoved(command.item_id, command.by)]
        case c.ChangeMetadata():
            if state.metadata == command.metadata:
                return []
            return [e.MetadataChanged(command.metadata, command.by)]
        case c.AttachResponse():
            return _attach(command, state)
        case c.EraseConversation():
            _refuse_if_locked(state)
            return [e.Erased(command.at, command.by, command.reason)]
        case _:
            assert_never(command)


def _created(command: c.CreateConversation) -> e.ConversationCreated:
    return e.ConversationCreated(
        id=command.conversation,
        project=command.project,
        key_id=command.key_id,
        created_at=command.at,
        metadata=command.metadata,
        items=command.items,
    )


def _add(command: c.AddItems, state: ConversationState) -> list[e.Event]:
    if not command.items:
        return []
    first = str(command.items[0]["id"])
    if first in state.removed or state.item(first) is not None:
        return []
    _refuse_if_locked(state)
    if len(state.items) + len(command.items) > ITEMS_MAX:
        raise ConversationFull(state.id, ITEMS_MAX)
    return [e.ItemsAdded(command.items, command.by)]


def _attach(command: c.AttachResponse, state: ConversationState) -> list[e.Event]:
    if state.attached == command.response_id:
        return []
    _refuse_if_locked(state)
    if len(state.items) >= ITEMS_MAX:
        raise ConversationFull(state.id, ITEMS_MAX)
    return [e.ResponseAttached(command.response_id)]


def _detach(command: c.DetachResponse, state: ConversationState) -> list[e.Event]:
    if state.attached != command.response_id:
        return []
    added = tuple(_with_own_ids(command.items, command.response_id, state))
    return [e.ResponseDetached(command.response_id, added)]


def _with_own_ids(items: Sequence[e.Item], response_id: str, state: ConversationState) -> Iterator[e.Item]:
    """The items, each under an id that no other of the conversation has: a client may send one back."""
    taken = {item["id"] for item in state.items}
    for index, item in enumerate(items):
        if item["id"] in taken:
            item = {**item, "id": input_id(response_id, str(item["type"]), index)}
        taken.add(item["id"])
        yield item


def _refuse_if_locked(state: ConversationState) -> None:
    if state.attached is not None:
        raise ConversationLocked(state.id, state.attached)
