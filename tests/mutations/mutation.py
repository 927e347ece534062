"""What a mutation is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """A mechanism that is removed by replacing a text, which occurs exactly once, in a file."""

    mechanism: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    """Files of tests, or single ones; the fewer, the sooner it is known."""
