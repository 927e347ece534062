"""Who runs a response, and where: actors, hosts, the supervisor, placement, recovery and the relay."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.handle import ResponseHandle

__all__ = ["get"]


def get(response_id: str) -> ResponseHandle:
    """The response of that id, seen from any Ray driver that is connected to its cluster.

    Raises `ValueError` where the cluster runs no Rayspond.
    """
    # Whoever only wants the names in this package need not have Ray imported.
    from actors.handle import ResponseHandle

    return ResponseHandle(response_id)
