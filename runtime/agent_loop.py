"""The agent loop: from a request to its answer, one model call after the other.

It decides how often and in which way a model is asked, and nothing else: what may be recorded is `decide`'s
business, how it is committed its journal's.  It reads no clock of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from eventstore.meter import METER
from runtime.attempt import Attempt
from runtime.catalog import Resolved
from runtime.checked_output import CheckedModel, form_to_check
from runtime.compaction import CompactingModel, is_due, last_turn, offers, without_offers
from runtime.intake import Intake
from runtime.journal import Journal
from runtime.model import JSON, Model, ModelError, ModelRequest
from runtime.models.upstream_errors import TOO_LONG
from runtime.obedient import ObedientModel
from runtime.python_tool import open_tool
from runtime.question import question, tokens_left, tools_answered
from runtime.response.commands import Command, Fail, Finish
from runtime.response.errors import IllegalCommand
from runtime.response.state import Call, ResponseState
from runtime.resume import Mode, Plan, has_calls, plan, said_of
from runtime.sealed_reasoning import SealedReasoningModel
from runtime.seam import Diverged, Said
from runtime.tool import Tool
from runtime.tool_calls import ToolCalls
from runtime.truncation import shortened

BACKOFF: Final = (0.5, 8.0)
"""Seconds before the first further try, doubled for each next one up to the second number."""

RETRY_AFTER_MAX: Final = 60.0
"""An upstream that asks to be left alone for longer than this is not waited for."""

TRIES_MAX: Final = 16
"""Tries of one call that were begun, over all activations."""

TURNS_MAX: Final = 32
"""Turns of a response whose tools this server runs, where its agent sets no limit."""

DIVERGED: Final = "diverged"
"""Why a call was given up whose words were not those that it should have repeated."""

_CANNOT: Final = ("invalid_prompt", "server_error")
"""What servers say to half a message that they cannot continue."""

_CALLS: Final = METER.counter("upstream_calls", "Calls of models that were begun.", "upstream")
_AGAIN: Final = METER.counter("upstream_retries", "Those that asked again for what had begun.", "upstream")
_FAILED: Final = METER.counter("upstream_errors", "Those that failed, by code.", "upstream", "code")


class AgentLoop:
    """Runs one response to its end.

    `context` is what the model is told: everything before this response, and its input.  `now` gives seconds
    since 1970 UTC, `sleep` waits, `open_tool` opens a tool that this server runs, as it is configured.
    `elapsed` are the seconds for which it has run before; they count towards its time limit.
    """

    def __init__(
        self,
        journal: Journal,
        context: Sequence[Mapping[str, JSON]],
        model: Model,
        seal: Callable[[Mapping[str, JSON]], str],
        *,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        elapsed: float = 0.0,
        open_tool: Callable[[Mapping[str, JSON]], Tool] = open_tool,
    ) -> None:
        self._journal = journal
        self._context = context
        self._seal = seal
        self._model: Model = ObedientModel(model)
        self._now = now
        self._sleep = sleep
        self._elapsed = elapsed
        self._config = Resolved.from_public(journal.state.agent)
        request = journal.state.request
        if not request.store or "reasoning.encrypted_content" in request.include:
            self._model = SealedReasoningModel(self._model, self._config.upstream.name, seal)
        form = form_to_check(request.text, self._config.upstream)
        if form is not None:
            self._model = CheckedModel(self._model, form)
        self._tools = ToolCalls(journal, self._config, open_tool)
        self._turns_max = self._config.limits.max_model_calls or TURNS_MAX

    async def run(self) -> None:
        """Go on from wherever the response stands.  Returns once it is over."""
        seconds = self._config.limits.seconds
        try:
            async with asyncio.timeout(None if seconds is None else seconds - self._elapsed):
                await self._proceed()
        except TimeoutError:
            if seconds is None:
                raise
            await self._fail(
                "time_limit_exceeded", f"The response took longer than its limit of {seconds:g} s."
            )
        except IllegalCommand as error:
            await self._fail("upstream_protocol", f"The model's answer makes no sense: {error.why}.")

    async def _proceed(self) -> None:
        """Ask, run the tools that were asked for, and ask again, until there is an answer."""
        await self._compact()
        while not (state := self._journal.state).is_over:
            compacted = any(item["type"] == "compaction" for item in state.call_items)
            if (
                state.begun_call
                or state.call is None
                or (compacted and len(without_offers(self._context)) > 1)
            ):
                await self._ask(self._model, self._finish)
                continue
            stop = self._stop(state.call)
            if calls := self._tools.due():
                if stop is None:
                    await self._tools.run(calls)
                else:
                    await self._tools.refuse(calls, stop.told)
            elif stop is None and self._tools.answered:
                await self._ask(self._model, self._finish)
            else:
                reason = stop.reason if stop is not None and self._tools.answered else None
                await self._journal.record(Finish(self._at(), reason))

    def _stop(self, call: Call) -> _Stop | None:
        """Why there is no further turn after `call`, even if a tool has more for the model."""
        if call.finish in ("length", "content_filter"):
            return _Stop("The answer was cut short.", None)
        if call.number + 1 >= self._turns_max:
            return _Stop(f"The limit of {self._turns_max} model calls is reached.", "max_messages")
        left = tokens_left(self._config, self._journal.state)
        if left is not None and left <= 0:
            return _Stop("The limit of output tokens is reached.", "max_output_tokens")
        return None

    # -- One turn ------------------------------------------------------------------------------------------

    async def _compact(self) -> None:
        """Begin with a summary of the context, where one is due; from then on it stands for the context."""
        if not is_due(self._context, self._journal.state.request):
            return
        if not self._journal.state.output:
            await self._ask(CompactingModel(self._model, self._seal), ending=list)
        turn = last_turn(self._context)
        before = self._context[: len(self._context) - len(turn)]
        self._context = [*offers(before), *self._journal.state.context_items[:1], *turn]

    async def _ask(self, model: Model, ending: Callable[[], Sequence[Command]]) -> None:
        """Call the model until its call has ended, and `ending` with it, or until there is no hope."""
        mode = self._mode(self._journal.state)
        failures, pause = 0, 0.0
        while True:
            state = self._journal.state
            said = said_of(state)
            if said and self._config.resume == "fail":
                return await self._fail("interrupted", "The model's answer was interrupted. Create it anew.")
            begun = state.begun_call
            if begun is not None and begun.attempt + 1 >= TRIES_MAX:
                return await self._fail("interrupted", "The model's answer was interrupted too often.")
            if pause:
                await self._sleep(pause)
            way = plan(said, mode, first=begun is None)
            attempt = Attempt(self._journal, self._config.upstream.name, way, ending)
            _CALLS.add(1, self._config.upstream.name)
            if begun is not None:
                _AGAIN.add(1, self._config.upstream.name)
            try:
                async with Intake(model, self._question(way, said)) as intake:
                    error = await attempt.run(intake)
            except Diverged:
                if has_calls(said):
                    return await attempt.end_with_calls()
                mode, pause = "prompt", 0.0
                await attempt.give_up(
                    DIVERGED, f"The model did not {way.resume} its words; it is asked to go on."
                )
                continue
            if error is None:
                return None
            _FAILED.add(1, self._config.upstream.name, error.code)
            if way.resume == "prefix" and error.code in _CANNOT:
                mode = "prompt"
                if not error.retryable:
                    pause = 0.0
                    await attempt.give_up(error.code, error.message)
                    continue
            if error.code == TOO_LONG and (shorter := self._shorter()) is not None:
                self._context, pause = shorter, 0.0
                await attempt.give_up(error.code, error.message)
                continue
            failures += 1
            wait = self._wait(error, failures)
            if wait is None:
                end = Fail(self._at(), error.code, error.message)
                return await attempt.give_up(error.code, error.message, end)
            await attempt.give_up(error.code, error.message)
            pause = wait

    def _mode(self, state: ResponseState) -> Mode:
        """How the model is asked to go on."""
        match self._config.resume:
            case "prefix" if self._config.continues:
                return "prefix"
            case "repeat" if not _worded_anew(state):
                return "repeat"
            case _:
                return "prompt"

    def _shorter(self) -> Sequence[Mapping[str, JSON]] | None:
        """A shorter context, where the request lets some of it be left out, and some of it can be."""
        return shortened(self._context) if self._journal.state.request.truncation == "auto" else None

    def _wait(self, error: ModelError, failures: int) -> float | None:
        """Seconds until the next try, or None where there is none."""
        if error.code == "invalid_output":
            return 0.0 if error.retryable else None
        if not error.retryable or failures > self._config.upstream.max_retries:
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= RETRY_AFTER_MAX else None
        first, most = BACKOFF
        return min(first * 2.0 ** (failures - 1), most)

    async def _fail(self, code: str, message: str) -> None:
        await self._journal.record(Fail(self._at(), code, message))

    def _finish(self) -> list[Command]:
        """What is recorded together with the end of a call: the end of all, where no tool can follow."""
        return [] if self._tools.exist else [Finish(self._at())]

    def _question(self, plan: Plan, said: Sequence[Said]) -> ModelRequest:
        state = self._journal.state
        asked = question(self._config, self._context, state, plan, said)
        last = self._tools.are_used_up or state.turn + 1 >= self._turns_max
        if last and tools_answered(state):
            return replace(asked, tool_choice="none")
        return asked

    def _at(self) -> int:
        return int(self._now())


class _Stop(NamedTuple):
    """Why no further turn follows."""

    told: str
    """What the model would be told of the calls that are not made."""
    reason: str | None
    """Why the response is incomplete, where its last call does not say."""


def _worded_anew(state: ResponseState) -> bool:
    """Whether the model did so once in this turn: then it is not asked to repeat itself again."""
    call = state.begun_call
    if call is None:
        return False
    return call.resume == "prompt" or (call.failure is not None and call.failure.code == DIVERGED)
