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


def _label(state: ProjectState) -> Label:
    return Label(
        tenant=state.id,
        state=ACTIVE if state.archived_at is None else ARCHIVED,
        attributes={"name": state.name, "keys": str(len(state.keys))},
    )


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
