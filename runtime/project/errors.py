"""Why a command to a project is refused."""

from __future__ import annotations

from runtime.aggregate import Refused


class UnknownProject(Refused):
    """There is no such project, or it was archived."""

    def __init__(self, project: str) -> None:
        super().__init__(project)
        self.project = project

    def __str__(self) -> str:
        return f"no project {self.project!r}"


class UnknownKey(Refused):
    """The project has no such key."""

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id

    def __str__(self) -> str:
        return f"no key {self.key_id!r}"


class TooManyKeys(Refused):
    """The project has as many keys as one may have."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def __str__(self) -> str:
        return f"a project has at most {self.most} keys: revoke one first"


class DefaultProject(Refused):
    """The default project cannot be archived."""

    def __str__(self) -> str:
        return "the project 'default' is always there and cannot be archived"
