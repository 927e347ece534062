"""On whose behalf a request is served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runtime.project.state import DEFAULT_PROJECT


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, once that is known: everything that a call reads or writes belongs to `project`."""

    project: str
    key_id: str | None
    """The project's key that was shown, or None for an operator or where no keys are configured."""
    admin: bool
    """Whether it may also do what concerns the whole server."""

    @property
    def by(self) -> str:
        """How the log names whoever did something."""
        if self.key_id is not None:
            return self.key_id
        return "anonymous" if self is OPEN else "admin"


NOBODY: Final = Principal("", None, admin=False)
"""Somebody who was not asked who it is: what is open to anybody belongs to no project."""
OPEN: Final = Principal(DEFAULT_PROJECT, None, admin=True)
"""Everybody, as long as no keys are configured."""
