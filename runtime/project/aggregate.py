"""Projects as aggregates: their stored names, and what their heads tell."""

from __future__ import annotations

from typing import Final

from runtime.aggregate import Aggregate, Label
from runtime.event_codec import EventCodec
from runtime.project import events as e
from runtime.project.decider import decide
from runtime.project.state import INITIAL, ProjectState, evolve

CATEGORY: Final = "project"
ACTIVE: Final = "active"
ARCHIVED: Final = "archived"


HAS_KEYS: Final = "has_keys"
"""The attribute of a project's head that is there once it ever had a key."""


def _label(state: ProjectState) -> Label:
    attributes = {"name": state.name, "created_at": str(state.created_at)}
    if state.archived_at is not None:
        attributes["archived_at"] = str(state.archived_at)
    if state.keys:
        attributes[HAS_KEYS] = "true"
    return Label(state.id, ACTIVE if state.archived_at is None else ARCHIVED, attributes)


PROJECT: Final[Aggregate[ProjectState, e.Event]] = Aggregate(
    category=CATEGORY,
    codec=EventCodec(
        {
            "project_created": e.ProjectCreated,
            "project_renamed": e.ProjectRenamed,
            "key_created": e.KeyCreated,
            "key_revoked": e.KeyRevoked,
            "quota_set": e.QuotaSet,
            "project_archived": e.ProjectArchived,
        }
    ),
    initial=INITIAL,
    decide=decide,
    evolve=evolve,
    label=_label,
)
"""The stream of a project bears its id."""
