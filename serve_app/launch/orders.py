"""What the supervisor tells the core.  Kept apart from both, so that the supervisor imports no Ray."""

from __future__ import annotations

import base64
import pickle
from dataclasses import dataclass
from pathlib import Path

from serve_app.settings import Settings


@dataclass(frozen=True, slots=True)
class Orders:
    """Settings that name every address, where Ray may put its files, and where the API will answer."""

    settings: Settings
    scratch: Path
    http_url: str

    def line(self) -> bytes:
        """All of it as one line."""
        return base64.b64encode(pickle.dumps(self)) + b"\n"

    @staticmethod
    def parse(line: bytes) -> Orders:
        """What `line` made.  Only for a line from the process that started us, by a pipe."""
        orders = pickle.loads(base64.b64decode(line))
        assert isinstance(orders, Orders)
        return orders
