"""What may be asked of a project.  Time, ids and hashes come in with the command; `decide` reads no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was made, without its text."""

    id: str
    name: str
    digest: str
    last4: str


@dataclass(frozen=True, slots=True)
class CreateProject:
    """Make the project."""

    project: str
    name: str
    at: int
    by: str


@dataclass(frozen=True, slots=True)
class RenameProject:
    """Call it something else."""

    project: str
    name: str
    at: int
    by: str


@dataclass(frozen=True, slots=True)
class CreateKey:
    """Let whoever shows this key act for the project."""

    project: str
    key: NewKey
    at: int
    by: str


@dataclass(frozen=True, slots=True)
class RevokeKey:
    """Let the key be worth nothing from `ends_at` on; a later end that was set before is brought forward."""

    project: str
    key_id: str
    ends_at: int
    at: int
    by: str


@dataclass(frozen=True, slots=True)
class RotateKey:
    """Put a new key in the place of another one, which goes on working until `ends_at`."""

    project: str
    key_id: str
    key: NewKey
    ends_at: int
    at: int
    by: str


@dataclass(frozen=True, slots=True)
class SetQuota:
    """Bound what the project may use; None lifts a bound, and what is not named stays as it is."""

    project: str
    limits: Mapping[str, int | None]
    at: int
    by: str


@dataclass(frozen=True, slots=True)
class ArchiveProject:
    """Serve nobody of this project any more."""

    project: str
    at: int
    by: str


Command = CreateProject | RenameProject | CreateKey | RevokeKey | RotateKey | SetQuota | ArchiveProject
