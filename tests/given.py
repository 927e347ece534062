"""Given what happened, when something is asked, then this happens: how tests of the core speak."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.response.aggregate import ENDINGS
from runtime.response.commands import Command
from runtime.response.decider import decide
from runtime.response.errors import IllegalCommand
from runtime.response.events import Event
from runtime.response.state import fold


class Given:
    """A response's past."""

    def __init__(self, past: tuple[Event, ...]) -> None:
        self.past = past

    def when(self, *commands: Command) -> When:
        """Ask for these, one after the other; what is then compared is what the last one led to."""
        past = self.past
        for command in commands[:-1]:
            past += tuple(decide(command, fold(past)))
        return When(past, commands[-1])


class When:
    """A past, and a command that has not been obeyed yet."""

    def __init__(self, past: tuple[Event, ...], command: Command) -> None:
        self.past, self.command = past, command

    def then(self, *expected: Event) -> None:
        """These events follow.  Their digests of what was shown are not compared (see `bare`)."""
        assert [bare(event) for event in decide(self.command, fold(self.past))] == list(expected)

    def then_nothing(self) -> None:
        """It changes nothing, so nothing is written."""
        assert decide(self.command, fold(self.past)) == []

    def then_refused(self, because: str = "") -> None:
        """It cannot be obeyed."""
        with pytest.raises(IllegalCommand, match=because):
            decide(self.command, fold(self.past))


def given(*past: Event) -> Given:
    """What happened so far."""
    return Given(past)


def bare(event: Event) -> Event:
    """The event without its digest, which tests of their own check."""
    return replace(event, shown="") if isinstance(event, ENDINGS) else event
