"""How `simulated` is told to behave, behind its name: `simulated?deltas=100&interval_ms=20`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from urllib.parse import parse_qsl

NAME = "simulated"
FAILURES: Mapping[str, bool] = {
    "server_error": True,
    "rate_limit_exceeded": True,
    "upstream_timeout": True,
    "upstream_unreachable": True,
    "upstream_interrupted": True,
    "upstream_protocol": False,
    "upstream_auth": False,
    "upstream_not_found": False,
    "invalid_prompt": False,
}
"""The codes that `fail` takes, and whether the same call may succeed later."""


@dataclass(frozen=True, slots=True)
class Script:
    """The parameters, read.  One delta counts as one token."""

    deltas: int | None = None
    """How many deltas a plain answer has; as many as it takes, when not given."""
    interval_ms: float = 0
    """Milliseconds between two deltas."""
    reasoning: int = 0
    """Deltas of a reasoning item that comes first."""
    tokens: int | None = None
    """Tokens after which it stops short, as if they had run out."""
    fail: str | None = None
    """The code of an error, raised at once or after `fail_after` deltas."""
    fail_after: int | None = None
    stall_after: int | None = None
    """Deltas after which nothing comes any more."""
    idle_ms: float = 60_000
    """How long a stalled call waits before it gives up with `upstream_timeout`."""
    refuse: bool = False
    """Whether it declines to answer."""
    tool: bool = True
    """Whether it calls a function it is offered."""
    vary: bool = False
    """Whether every attempt words its answer differently."""


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return read


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("0 or 1")
    return text == "1"


def _code(text: str) -> str:
    if text not in FAILURES:
        raise ValueError("one of " + ", ".join(FAILURES))
    return text


# The bounds keep a typing error from running for days or filling the memory.
READERS: Mapping[str, Callable[[str], object]] = {
    "deltas": _whole(1, 1_000_000),
    "interval_ms": _whole(0, 60_000),
    "reasoning": _whole(0, 100_000),
    "tokens": _whole(1, 1_000_000),
    "fail": _code,
    "fail_after": _whole(0, 1_000_000),
    "stall_after": _whole(0, 1_000_000),
    "idle_ms": _whole(1, 3_600_000),
    "refuse": _switch,
    "tool": _switch,
    "vary": _switch,
}
assert set(READERS) == {one.name for one in fields(Script)}


def is_simulated(model: str) -> bool:
    """Whether `model` names `simulated`, with or without parameters."""
    return model == NAME or model.startswith(NAME + "?")


@lru_cache(maxsize=1024)
def parse(model: str) -> Script:
    """Read the parameters behind the name.  Raises `ValueError` that names the parameter and the remedy."""
    given: dict[str, object] = {}
    for name, text in parse_qsl(model.partition("?")[2], keep_blank_values=True):
        if name not in READERS:
            raise ValueError(f"`simulated` has no parameter {name!r}. It takes: {', '.join(READERS)}.")
        if name in given:
            raise ValueError(f"The parameter {name!r} of `simulated` is given twice. Give it once.")
        try:
            given[name] = READERS[name](text)
        except ValueError as reason:
            raise ValueError(
                f"The parameter {name!r} of `simulated` must be {reason}, not {text!r}."
            ) from None
    if ("fail_after" in given) and "fail" not in given:
        raise ValueError("The parameter 'fail_after' of `simulated` needs 'fail', the code of the error.")
    return Script(**given)  # type: ignore[arg-type]  # each reader returns its field's type, which a dict forgets
