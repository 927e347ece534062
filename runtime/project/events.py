"""What can happen to a project.  Recorded for ever: new fields are optional, names stay.

Times are seconds since 1970 UTC; `by` is the id of the key that asked, or `admin`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProjectCreated:
    """It exists from now on."""

    id: str
    name: str
    at: int
    by: str


@dataclass(frozen=True, slots=True)
class ProjectRenamed:
    """People call it something else."""

    name: str
    at: int
    by: str


@dataclass(frozen=True, slots=True)
class KeyCreated:
    """Whoever shows this key acts for the project.  The key itself is recorded nowhere."""

    id: str
    name: str
    digest: str
    """Keyed hash of the key's text, hex."""
    last4: str
    """The end of the key's text, by which people tell keys apart."""
    at: int
    by: str
    replaces: str | None = None
    """The key that was rotated."""


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    """The key is worth nothing from `ends_at` on."""

    id: str
    ends_at: int
    at: int
    by: str


@dataclass(frozen=True, slots=True)
class QuotaSet:
    """How much the project may use; what is not named is as it was, and None is without bound."""

    limits: Mapping[str, int | None]
    at: int
    by: str


@dataclass(frozen=True, slots=True)
class ProjectArchived:
    """It serves nobody any more; what it recorded stays."""

    at: int
    by: str


Event = ProjectCreated | ProjectRenamed | KeyCreated | KeyRevoked | QuotaSet | ProjectArchived
