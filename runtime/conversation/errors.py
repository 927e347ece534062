"""Why a command to a conversation is refused."""

from __future__ import annotations

from runtime.aggregate import Refused


class UnknownConversation(Refused):
    """It is unknown, another project's or erased: nobody can tell which."""

    def __init__(self, conversation: str) -> None:
        super().__init__(conversation)
        self.conversation = conversation

    def __str__(self) -> str:
        return f"Conversation with id '{self.conversation}' not found."


class ConversationLocked(Refused):
    """A response runs in it."""

    def __init__(self, conversation: str, response_id: str) -> None:
        super().__init__(conversation, response_id)
        self.conversation, self.response_id = conversation, response_id

    def __str__(self) -> str:
        return "Another process is currently operating on this conversation. Please retry in a few seconds."


class ConversationFull(Refused):
    """It holds as many items as one may."""

    def __init__(self, conversation: str, most: int) -> None:
        super().__init__(conversation, most)
        self.conversation, self.most = conversation, most

    def __str__(self) -> str:
        return f"A conversation holds at most {self.most:,} items. Begin a new one, or delete some of them."
