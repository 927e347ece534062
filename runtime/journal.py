"""What the agent loop and its parts write to: a response's journal, whoever keeps it."""

from __future__ import annotations

from typing import Protocol

from runtime.response.commands import Command
from runtime.response.state import ResponseState


class Journal(Protocol):
    """Where commands go, and what they have led to."""

    @property
    def state(self) -> ResponseState:
        """The fold of everything recorded."""
        ...

    async def record(self, *commands: Command) -> None:
        """Obey the commands in one commit.  Once it returns, followers see what came of them."""
        ...
