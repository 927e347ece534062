"""Given what happened to a conversation, when something is asked, then this happens."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.aggregate import Refused
from runtime.conversation import commands as c
from runtime.conversation import events as e
from runtime.conversation.aggregate import CONVERSATION
from runtime.conversation.state import ConversationState

ID = "conv_" + "c0" * 16
OURS = "default"
RESPONSE = "resp_" + "5e" * 16
OTHER = "resp_" + "07" * 16


def item(number: int, text: str = "Hello?") -> dict[str, Any]:
    """A message with an id of its own."""
    return {
        "id": f"msg_{number:038x}",
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": text}],
    }


def created(*items: e.Item) -> e.ConversationCreated:
    return e.ConversationCreated(ID, OURS, "key_1", 1_800_000_000, {"topic": "trees"}, items)


ATTACHED = e.ResponseAttached(RESPONSE)
ERASED = e.Erased(1_800_000_009, "key_1", "deleted by its owner")

CREATE = c.CreateConversation(ID, OURS, "key_1", 1_800_000_000, {"topic": "trees"})
ATTACH = c.AttachResponse(ID, OURS, RESPONSE)
ERASE = c.EraseConversation(ID, OURS, 1_800_000_009, "key_1")


def add(*items: e.Item, project: str = OURS) -> c.AddItems:
    return c.AddItems(ID, project, items, "key_1")


def remove(number: int) -> c.RemoveItem:
    return c.RemoveItem(ID, OURS, item(number)["id"], "key_1")


def detach(*items: e.Item, response_id: str = RESPONSE) -> c.DetachResponse:
    return c.DetachResponse(ID, OURS, response_id, items)


class Given:
    """A conversation's past."""

    def __init__(self, past: tuple[e.Event, ...]) -> None:
        self.past = past

    def when(self, command: c.Command) -> When:
        """Ask for it."""
        return When(CONVERSATION.fold(self.past, CONVERSATION.initial), command)


class When:
    """A state, and a command that has not been obeyed yet."""

    def __init__(self, state: ConversationState, command: c.Command) -> None:
        self.state, self.command = state, command

    def then(self, *expected: e.Event) -> None:
        """These events follow, and asking again changes nothing."""
        events = CONVERSATION.decide(self.command, self.state)
        assert list(events) == list(expected)
        assert CONVERSATION.decide(self.command, CONVERSATION.fold(events, self.state)) == []

    def then_nothing(self) -> None:
        """It changes nothing, so nothing is written."""
        assert CONVERSATION.decide(self.command, self.state) == []

    def then_refused(self, kind: type[Refused]) -> None:
        """It cannot be obeyed."""
        with pytest.raises(kind):
            CONVERSATION.decide(self.command, self.state)


def given(*past: e.Event) -> Given:
    """What happened so far."""
    return Given(past)
