"""`truncation: auto`: what of a context that is too long for its model is left out.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.compaction import last_turn
from runtime.model import JSON
from runtime.response.items import CALLS, OUTPUTS, call_of

Item = Mapping[str, JSON]

_KEPT_ROLES = ("system", "developer")


def shortened(context: Sequence[Item]) -> Sequence[Item] | None:
    """The context without the older half of what may be left out, in order; None where nothing may be.

    What is still to be answered stays, and so do system messages; calls go with their outputs.
    """
    turn = len(context) - len(last_turn(context))
    may_go = [index for index in range(turn) if context[index].get("role") not in _KEPT_ROLES]
    if not may_go:
        return None
    gone = set(may_go[: (len(may_go) + 1) // 2])
    called = {call_of(context[index]) for index in gone if context[index].get("type") in (*CALLS, *OUTPUTS)}
    return [
        item
        for index, item in enumerate(context)
        if index not in gone and not (item.get("type") in (*CALLS, *OUTPUTS) and call_of(item) in called)
    ]
