"""What can go wrong with a response.

ResponseError
├── IllegalCommand               the response is not in a state in which that can be asked
├── UnknownEvent                 the log was written by a newer Rayspond: do not activate, never skip
├── InvalidInput                 the input contradicts itself or what it continues
├── PreviousResponseNotFound     the parent is unknown, foreign or erased: one answer for all three
└── PreviousResponseInProgress   the parent is still running
"""

from __future__ import annotations


class ResponseError(Exception):
    """Base of all errors of the core.  Arguments are kept whole so that they survive pickling."""


class IllegalCommand(ResponseError):
    """The response is not in a state in which that can be asked."""

    def __init__(self, command: object, status: str, why: str = "") -> None:
        super().__init__(command, status, why)
        self.command, self.status, self.why = command, status, why

    def __str__(self) -> str:
        because = f": {self.why}" if self.why else ""
        return f"{type(self.command).__name__} is not possible for a response that is {self.status}{because}"


class UnknownEvent(ResponseError):
    """The log holds something that this version of Rayspond does not know."""

    def __init__(self, stream: str, version: int, what: str) -> None:
        super().__init__(stream, version, what)
        self.stream, self.version, self.what = stream, version, what

    def __str__(self) -> str:
        where = f"stream {self.stream!r}, version {self.version}"
        return f"{where}: {self.what} is unknown to this version of Rayspond"


class InvalidInput(ResponseError):
    """The input contradicts itself or what it continues.  Both fields are for the client."""

    def __init__(self, message: str, param: str = "input") -> None:
        super().__init__(message, param)
        self.message, self.param = message, param

    def __str__(self) -> str:
        return self.message


class PreviousResponseNotFound(ResponseError):
    """The parent is unknown, foreign, erased or was never stored: nobody can tell which."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id

    def __str__(self) -> str:
        shown = self.id if len(self.id) <= 100 else self.id[:100] + "..."
        return f"Previous response with id '{shown}' not found."


class PreviousResponseInProgress(ResponseError):
    """The parent is still running."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id

    def __str__(self) -> str:
        return f"Previous response with id '{self.id}' is still in progress. Retry when it has ended."
