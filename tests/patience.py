"""How long a test waits for what must happen, so that a hang is a failure that says where."""

from __future__ import annotations

from typing import Final

PATIENCE_S: Final = 120.0
"""Long, because no test is about speed: on a machine that does much else, a moment may take a minute."""
