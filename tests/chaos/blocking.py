"""A tool as nobody should write one."""

from __future__ import annotations

import time

BLOCKED_S = 5.0


async def block() -> str:
    """Keep the host's event loop from everything else."""
    time.sleep(BLOCKED_S)  # noqa: ASYNC251  (that it blocks is what it is for)
    return "done"
