"""Tools of an operator's own, whose effects can be counted from outside: run by the server under test."""

from __future__ import annotations

import os
import time
from pathlib import Path

EFFECTS = "E2E_EFFECTS"
"""The environment variable that names a directory: there every effect is a line of its purse's file."""

PATIENCE_S = 60.0


def hold(purse: str, idempotency_key: str) -> str:
    """Spend from the purse at once, then hold until its file `<purse>.go` is there."""
    directory = Path(os.environ[EFFECTS])
    with (directory / purse).open("a") as effects:
        effects.write(f"{idempotency_key} {os.getpid()}\n")
    deadline = time.monotonic() + PATIENCE_S
    while not (directory / f"{purse}.go").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return f"spent from {purse}"


async def length(text: str) -> int:
    """How long a text is."""
    return len(text)
