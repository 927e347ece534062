"""The calls of one response whose tools the server runs: which are due, and what the model is told of them.

That a tool is about to run is recorded before it runs, and its outcome before the model hears of it; what is
recorded is never done again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from runtime.catalog import Resolved
from runtime.journal import Journal
from runtime.model import JSON
from runtime.models.json_text import loads, whole
from runtime.response.commands import Command, FinishTool, StartTool
from runtime.response.items import unanswered
from runtime.tool import OUTPUT_CHARS, Tool, ToolError, in_words, is_run_here

log = logging.getLogger(__name__)

AT_ONCE: Final = 16
"""Tools of one response that run side by side."""

STOPPING: Final = 5.0
"""Seconds that a tool which is cancelled may hold up its response."""

OUTCOME_UNKNOWN: Final = (
    "The server was interrupted while this tool ran. Whether it took effect is unknown, and it was not run "
    "again. Check what became of it before you call it once more."
)
"""What a model is told of a tool that ran when its host died, and may not be run twice."""

Call = Mapping[str, JSON]
"""A function call item."""


class ToolCalls:
    """Runs the tools of one response.  `open_tool` opens one as it is configured; it raises `ToolError`."""

    def __init__(
        self, journal: Journal, config: Resolved, open_tool: Callable[[Mapping[str, JSON]], Tool]
    ) -> None:
        self._journal = journal
        self._tools = {str(tool["name"]): tool for tool in config.tools if is_run_here(tool)}
        self._limit = config.limits.max_tool_calls
        self._open_tool = open_tool

    @property
    def exist(self) -> bool:
        """Whether there is any tool to run."""
        return bool(self._tools)

    @property
    def limit(self) -> int | None:
        """Calls that may be made in all."""
        limits = (self._journal.state.request.max_tool_calls, self._limit)
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def made(self) -> int:
        """Calls that were made, or refused, so far."""
        return sum(item["type"] == "function_call_output" for item in self._journal.state.output)

    @property
    def are_used_up(self) -> bool:
        """Whether no further call may be made."""
        return self.limit is not None and self.made >= self.limit

    def due(self) -> list[Call]:
        """The calls of the turn that ended which this server is to answer."""
        waiting = unanswered(self._journal.state.call_items)
        return [call for call in waiting if call["type"] == "function_call" and call["name"] in self._tools]

    @property
    def answered(self) -> bool:
        """Whether the turn that ended had calls of such tools, and nothing of it waits for the client."""
        state = self._journal.state
        outputs = any(item["type"] == "function_call_output" for item in state.call_items)
        return outputs and not unanswered(state.call_items)

    async def refuse(self, calls: Sequence[Call], why: str) -> None:
        """Tell the model that its calls were not made."""
        await self._journal.record(*(FinishTool(call["call_id"], why, "refused") for call in calls))

    async def run(self, calls: Sequence[Call]) -> None:
        """Answer the calls: run their tools side by side, and record each outcome as it comes.

        Cancelled, it cancels the tools.
        """
        begun = [call for call in calls if call["call_id"] in self._journal.state.tools]
        fresh = [call for call in calls if call not in begun]
        limit = self.limit
        left = len(fresh) if limit is None else max(0, limit - self.made - len(begun))
        allowed = [*begun, *fresh[:left]]
        for at in range(0, len(allowed), AT_ONCE):
            await self._run(allowed[at : at + AT_ONCE])
        # Last, so that a host which dies before has not counted them as made.
        await self.refuse(fresh[left:], f"The limit of {limit} tool calls is reached. Answer without it.")

    async def _run(self, calls: Sequence[Call]) -> None:
        commands: list[Command] = []
        runs: list[tuple[str, Tool, Mapping[str, JSON]]] = []
        for call in calls:
            call_id = str(call["call_id"])
            try:
                tool = self._open_tool(self._tools[call["name"]])
                arguments = _arguments(call)
            except ToolError as error:
                log.warning("the tool %s cannot be run: %s", call["name"], error)
                commands.append(FinishTool(call_id, f"The tool was not run. {in_words(error)}", "refused"))
                continue
            if call_id in self._journal.state.tools and not tool.idempotent:
                commands.append(FinishTool(call_id, OUTCOME_UNKNOWN, "outcome_unknown"))
                continue
            commands.append(StartTool(call_id))
            runs.append((call_id, tool, arguments))
        await self._journal.record(*commands)
        keys = self._journal.state.tools
        tasks = [asyncio.ensure_future(_outcome(*run, keys[run[0]].key)) for run in runs]
        running = set(tasks)
        try:
            while running:
                # Not `gather`: cancelled, it would wait for tools that do not stop.
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                await self._journal.record(*(task.result() for task in tasks if task in done))
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=STOPPING)


async def _outcome(call_id: str, tool: Tool, arguments: Mapping[str, JSON], key: str) -> FinishTool:
    """Run the tool, within its time.  Only cancellation passes."""
    limit = asyncio.timeout(tool.timeout_s)
    try:
        async with limit:
            output = whole(await tool.run(arguments, key))
    except TimeoutError as error:
        if limit.expired():
            late = f"The tool did not answer within {tool.timeout_s:g} s. Whether it took effect is unknown."
            return FinishTool(call_id, late, "timeout")
        return FinishTool(call_id, f"The tool failed. {whole(in_words(error))}", "failed")
    except Exception as error:  # noqa: BLE001  (whatever it is, the model is told)
        return FinishTool(call_id, f"The tool failed. {whole(in_words(error))}", "failed")
    if len(output) > OUTPUT_CHARS:
        output = f"{output[:OUTPUT_CHARS]}\n[cut off here: {len(output)} characters]"
    return FinishTool(call_id, output)


def _arguments(call: Call) -> Mapping[str, JSON]:
    """What the model gave.  Raises `ToolError`."""
    try:
        arguments = loads(str(call["arguments"] or "{}").encode())
    except ValueError:
        raise ToolError("Its arguments are no JSON.") from None
    if not isinstance(arguments, dict):
        raise ToolError("Its arguments are no JSON object.")
    return arguments
