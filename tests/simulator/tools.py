"""A tool that hosts run and whose effects are counted: it spends, and takes its time before and after."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from runtime.model import JSON
from runtime.response import events as e
from runtime.tool_calls import OUTCOME_UNKNOWN
from tests.simulator.loop import NOWHERE
from tests.simulator.weather import Weather

SPEND: Final = {"type": "function", "name": "spend", "parameters": {}, "python": "simulated"}


class Till:
    """What was spent, outside of every process."""

    def __init__(self, weather: Weather) -> None:
        self.weather = weather
        self.keys: dict[str, list[str]] = {}
        """For what is bought, the key of every time that it was paid."""

    def pay(self, item: str, key: str) -> None:
        """The effect."""
        self.keys.setdefault(item, []).append(key)

    def judge(self, output: Sequence[Mapping[str, Any]], events: Sequence[e.Event]) -> list[str]:
        """What is wrong with the calls of one response that is over."""
        problems = []
        finished = {event.call_id: event.output for event in events if isinstance(event, e.ToolFinished)}
        for call in output:
            if call["type"] != "function_call" or call["name"] != SPEND["name"]:
                continue
            arguments, told = call["arguments"], finished.get(call["call_id"])
            keys, once = self.keys.get(arguments, []), "once" in arguments
            if len(set(keys)) > 1 or (once and len(keys) > 1):
                problems.append(f"{arguments} was paid with the keys {keys}")
            if told is None:
                continue
            if told == _paid(arguments):
                if not keys:
                    problems.append(f"the model was told that {arguments} is paid, and it is not")
            elif told != OUTCOME_UNKNOWN or not once:
                problems.append(f"the model was told of {arguments}: {told}")
        return problems


class SimulatedTool:
    """`Tool`."""

    timeout_s = 600.0

    def __init__(self, till: Till, tool: Mapping[str, JSON]) -> None:
        self._till = till
        self.idempotent = bool(tool["idempotent"])

    async def run(self, arguments: Mapping[str, JSON], key: str) -> str:
        """Pay.  What is on its way is paid also where whoever asked for it dies or goes away."""
        loop, weather = asyncio.get_running_loop(), self._till.weather
        text = arguments_of(str(arguments["item"]))
        loop.call_later(weather.between(0.001, 0.5), self._till.pay, text, key, context=NOWHERE)
        await asyncio.sleep(weather.between(0.5, 8))
        return _paid(text)


def arguments_of(item: str) -> str:
    """What the model gives for something to be bought.  Its name says whether that may happen once only."""
    return f'{{"item":"{item}"}}'


def _paid(arguments: str) -> str:
    return f"paid: {arguments}"
