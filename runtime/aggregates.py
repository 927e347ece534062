"""Every kind of aggregate that no host runs, by the category of its streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from runtime.aggregate import Aggregate
from runtime.conversation.aggregate import CONVERSATION
from runtime.project.aggregate import PROJECT

AGGREGATES: Final[Mapping[str, Aggregate[Any, Any]]] = {
    kind.category: kind for kind in (CONVERSATION, PROJECT)
}
