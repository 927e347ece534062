"""The tool port: what the agent loop asks of a tool that the server runs, and what comes back.

A tool decides nothing about when it runs.  That it is about to run is recorded before, what came of it
afterwards; after a crash a tool that was running is run again only where it is `idempotent`, with the same
key (docs/adr/0015-server-tools.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from runtime.model import JSON

TIMEOUT_S: Final = 60.0
"""How long a tool may take where nothing else is said."""

OUTPUT_CHARS: Final = 256 * 1024
"""What a model is told of one output; the rest is cut off."""

ERROR_CHARS: Final = 500
"""What a model is told of an error."""


class ToolError(Exception):
    """The tool did not do it.  The text is for the model, and is recorded: it must hold no secret."""


class Tool(Protocol):
    """One tool; serves any number of calls at once."""

    @property
    def idempotent(self) -> bool:
        """Whether running it again with the same key has no further effect."""
        ...

    @property
    def timeout_s(self) -> float:
        """After how many seconds its output is no longer waited for."""
        ...

    async def run(self, arguments: Mapping[str, JSON], key: str) -> str:
        """Do it; what the model is told.  `key` is the same whenever the same call is run again.

        Cancelled, it stops as soon as it can; what it would have said is dropped.  Raises `ToolError`; any
        other exception counts as one with its own text.
        """
        ...


def is_run_here(tool: Mapping[str, Any]) -> bool:
    """Whether an agent's tool is run by this server; all others are the client's to run."""
    return "python" in tool


def offered(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a model is told of an agent's tool."""
    known = ("type", "name", "description", "parameters", "strict")
    return {name: tool[name] for name in known if name in tool} if is_run_here(tool) else tool


def in_words(error: BaseException) -> str:
    """An exception in one line, without its stack."""
    words = " ".join(str(error).split())[:ERROR_CHARS]
    return words if isinstance(error, ToolError) else f"{type(error).__name__}: {words}".removesuffix(": ")
