"""The rules of projects: what happens if we obey a command now?

What is already so decides nothing, so that a repeated command writes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, assert_never

from runtime.project import commands as c
from runtime.project import events as e
from runtime.project.errors import DefaultProject, TooManyKeys, UnknownKey, UnknownProject
from runtime.project.state import DEFAULT_PROJECT, ProjectState

KEYS_MAX: Final = 1000
"""Keys of one project that work at one time."""


def decide(command: c.Command, state: ProjectState) -> list[e.Event]:
    """The events that follow from `command`.  Raises a `runtime.aggregate.Refused`."""
    if isinstance(command, c.CreateProject):
        return [] if state.id else [e.ProjectCreated(command.project, command.name, command.at, command.by)]
    first: list[e.Event] = []
    if not state.id and command.project == DEFAULT_PROJECT:
        # It is there without being made; its record begins with what is first asked of it.
        first = [e.ProjectCreated(DEFAULT_PROJECT, DEFAULT_PROJECT, command.at, command.by)]
        state = replace(state, id=DEFAULT_PROJECT, name=DEFAULT_PROJECT)
    if not state.id:
        raise UnknownProject(command.project)
    if isinstance(command, c.ArchiveProject):
        return _archive(command, state)
    if not state.serves:
        raise UnknownProject(command.project)
    events = _change(command, state)
    return [*first, *events] if events else []


def _change(command: c.Command, state: ProjectState) -> list[e.Event]:
    match command:
        case c.RenameProject():
            if state.name == command.name:
                return []
            return [e.ProjectRenamed(command.name, command.at, command.by)]
        case c.CreateKey():
            return _create_key(command.key, command.at, command.by, state)
        case c.RevokeKey():
            return _revoke(command, state)
        case c.RotateKey():
            if command.key.id in state.keys:
                return []
            old = state.keys.get(command.key_id)
            if old is None or not old.works_at(command.at):
                raise UnknownKey(command.key_id)
            ends = _revoke(
                c.RevokeKey(command.project, command.key_id, command.ends_at, command.at, command.by), state
            )
            made = _create_key(command.key, command.at, command.by, state, replaces=command.key_id)
            return [*made, *ends]
        case c.SetQuota():
            limits = {
                name: limit for name, limit in command.limits.items() if getattr(state.quotas, name) != limit
            }
            return [e.QuotaSet(limits, command.at, command.by)] if limits else []
        case c.CreateProject() | c.ArchiveProject():
            raise AssertionError("decided before")
        case _:
            assert_never(command)


def _create_key(
    key: c.NewKey, at: int, by: str, state: ProjectState, replaces: str | None = None
) -> list[e.Event]:
    if key.id in state.keys:
        return []
    if sum(other.works_at(at) for other in state.keys.values()) >= KEYS_MAX:
        raise TooManyKeys(KEYS_MAX)
    return [e.KeyCreated(key.id, key.name, key.digest, key.last4, at, by, replaces)]


def _revoke(command: c.RevokeKey, state: ProjectState) -> list[e.Event]:
    key = state.keys.get(command.key_id)
    if key is None:
        raise UnknownKey(command.key_id)
    if not key.works_at(command.ends_at):
        return []
    return [e.KeyRevoked(command.key_id, command.ends_at, command.at, command.by)]


def _archive(command: c.ArchiveProject, state: ProjectState) -> list[e.Event]:
    if state.id == DEFAULT_PROJECT:
        raise DefaultProject
    return [] if state.archived_at is not None else [e.ProjectArchived(command.at, command.by)]
