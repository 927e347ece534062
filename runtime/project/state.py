"""What is so about a project, and how each event changes it.  Nothing here refuses an event: it happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final, assert_never

from runtime.project import events as e

DEFAULT_PROJECT: Final = "default"
"""The project that is there without being made: everything belongs to it as long as there are no keys."""

ENDED_KEPT: Final = 100
"""Revoked keys that a state remembers, so that a revocation may be repeated; the log knows all of them."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much a project may use; None is without bound."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Input and output tokens of models together."""
    running_responses: int | None = None
    """Responses that run or wait at one time."""
    open_streams: int | None = None
    """Connections that wait for events at one time."""
    stored_bytes: int | None = None
    """What its responses and conversations may hold in the log."""


QUOTAS: Final = tuple(each.name for each in fields(Quotas))
"""Every quota's name."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key, without its text."""

    id: str
    name: str
    digest: str
    last4: str
    created_at: int
    created_by: str
    ends_at: int | None = None
    """When it ceases to work, or ceased."""

    def works_at(self, now: float) -> bool:
        """Whether whoever shows it is let in at that time."""
        return self.ends_at is None or now < self.ends_at


@dataclass(frozen=True, slots=True)
class ProjectState:
    """The fold of a project's events."""

    id: str = ""
    """Empty before it is made."""
    name: str = ""
    created_at: int = 0
    archived_at: int | None = None
    keys: Mapping[str, Key] = field(default_factory=dict)
    quotas: Quotas = Quotas()

    @property
    def serves(self) -> bool:
        """Whether it exists and is not archived."""
        return bool(self.id) and self.archived_at is None


INITIAL: Final = ProjectState()
VIRTUAL_DEFAULT: Final = ProjectState(DEFAULT_PROJECT, DEFAULT_PROJECT)
"""The default project while nothing of it is recorded."""


def evolve(state: ProjectState, event: e.Event) -> ProjectState:
    """The state after an event."""
    match event:
        case e.ProjectCreated():
            return replace(state, id=event.id, name=event.name, created_at=event.at)
        case e.ProjectRenamed():
            return replace(state, name=event.name)
        case e.KeyCreated():
            key = Key(event.id, event.name, event.digest, event.last4, event.at, event.by)
            return replace(state, keys=_without_old({**state.keys, key.id: key}, event.at))
        case e.KeyRevoked():
            ended = replace(state.keys[event.id], ends_at=event.ends_at)
            return replace(state, keys={**state.keys, ended.id: ended})
        case e.QuotaSet():
            known = {name: limit for name, limit in event.limits.items() if name in QUOTAS}
            return replace(state, quotas=replace(state.quotas, **known))
        case e.ProjectArchived():
            return replace(state, archived_at=event.at)
        case _:
            assert_never(event)


def _without_old(keys: Mapping[str, Key], now: int) -> Mapping[str, Key]:
    """Forget what ended long ago, so that years of rotation do not make the state grow."""
    ended = [key.id for key in keys.values() if not key.works_at(now)]
    forgotten = set(ended[: max(0, len(ended) - ENDED_KEPT)])
    return {id: key for id, key in keys.items() if id not in forgotten}
