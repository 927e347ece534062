"""What can stop a command of Rayspond, told to people."""

from __future__ import annotations


class CannotStart(Exception):
    """Nothing was started: `message` says in one line what is wrong and the remedy.  Exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class StartFailed(CannotStart):
    """Something broke while it started.  Everything that ran has been ended.  Exit code 1."""
