"""A response's hold on its conversation: taken by the unit that creates the response, let go by the one that
ends it, whoever ends it.  So no crash can leave a conversation locked by a response that is over.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from eventstore.events import Unit
from eventstore.ports import LogReader
from runtime.conversation.aggregate import CONVERSATION
from runtime.conversation.commands import AttachResponse, Command, DetachResponse
from runtime.conversation.errors import UnknownConversation
from runtime.conversation.state import INITIAL, ConversationState, is_conversation_id
from runtime.response import history
from runtime.response.aggregate import ResponseState


class Attachment:
    """One response in its conversation."""

    def __init__(self, reader: LogReader, conversation: str) -> None:
        self.conversation = conversation
        self._reader = reader
        self._state: ConversationState = INITIAL
        self._version: int | None = None

    async def read(self, project: str) -> ConversationState:
        """The conversation as it stands.

        Raises `UnknownConversation`, `UnknownEvent`, `StoreUnavailable`.
        """
        if not is_conversation_id(self.conversation):
            raise UnknownConversation(self.conversation)
        await self._refresh()
        if not self._state.belongs_to(project):
            raise UnknownConversation(self.conversation)
        return self._state

    async def _refresh(self) -> None:
        read = partial(CONVERSATION.read, self._reader, self.conversation)
        if self._version is None:
            self._state, self._version = await read()
        else:
            self._state, self._version = await read(self._state, self._version)

    async def joined(self, unit: Unit, before: ResponseState, after: ResponseState) -> Unit:
        """The unit with what it means for the conversation, if it creates the response or ends it.

        A response is attached to the very conversation that was read for it; where that changed since, the
        log refuses the unit.  Its end is for the conversation as it stands now.  Raises `ConversationLocked`,
        `ConversationFull`, `UnknownEvent`, `StoreUnavailable`.
        """
        command: Command
        if before.created is None:
            command = AttachResponse(self.conversation, after.project, after.id)
        elif after.is_over and not before.is_over:
            await self._refresh()
            added = history.conversation_items(after)
            command = DetachResponse(self.conversation, after.project, after.id, added)
        else:
            return unit
        events = CONVERSATION.decide(command, self._state)
        if not events:
            return unit
        assert self._version is not None, "it was read before a response was attached to it"
        state = CONVERSATION.fold(events, self._state)
        append = CONVERSATION.append(self.conversation, self._version, state, events)
        documents = [*unit.documents, *CONVERSATION.documents(append, state)]
        return replace(unit, appends=[*unit.appends, append], documents=documents)
