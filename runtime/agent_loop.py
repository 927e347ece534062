"""The agent loop: from a request to its answer, one model call after the other.

It decides how often and in which way a model is asked, and nothing else: what may be recorded is `decide`'s
business, how it is committed its journal's.  It reads no clock of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from eventstore.meter import METER
from runtime.catalog import Resolved
from runtime.checked_output import CheckedModel, form_to_check
from runtime.compaction import CompactingModel, is_due, last_turn
from runtime.intake import Intake
from runtime.model import (
    JSON,
    CallEnded,
    CallStarted,
    Model,
    ModelError,
    ModelEvent,
    ModelRequest,
    Usage,
)
from runtime.obedient import ObedientModel
from runtime.response.commands import (
    BeginCall,
    CloseItem,
    Command,
    EndCallFailed,
    Fail,
    Finish,
    RecordOutput,
)
from runtime.response.errors import IllegalCommand
from runtime.response.request import ResponseRequest
from runtime.response.state import ResponseState
from runtime.resume import Mode, Plan, has_calls, plan, said_of
from runtime.sealed_reasoning import SealedReasoningModel
from runtime.seam import Diverged, Said

BACKOFF: Final = (0.5, 8.0)
"""Seconds before the first further try, doubled for each next one up to the second number."""

RETRY_AFTER_MAX: Final = 60.0
"""An upstream that asks to be left alone for longer than this is not waited for."""

TRIES_MAX: Final = 16
"""Tries of one call that were begun, over all activations."""

CHARS_PER_TOKEN: Final = 4
"""A rule of thumb, for what a continued answer has left of its `max_output_tokens`."""

_CANNOT: Final = ("invalid_prompt", "server_error")
"""What servers say to half a message that they cannot continue."""

_CALLS: Final = METER.counter("upstream_calls", "Calls of models that were begun.", "upstream")
_AGAIN: Final = METER.counter("upstream_retries", "Those that asked again for what had begun.", "upstream")
_FAILED: Final = METER.counter("upstream_errors", "Those that failed, by code.", "upstream", "code")


class Journal(Protocol):
    """Where the loop's commands go, and what they have led to."""

    @property
    def state(self) -> ResponseState:
        """The fold of everything recorded."""
        ...

    async def record(self, *commands: Command) -> None:
        """Obey the commands in one commit.  Once it returns, followers see what came of them."""
        ...


class AgentLoop:
    """Runs one response to its end.

    `context` is what the model is told: everything before this response, and its input.  `now` gives seconds
    since 1970 UTC, `sleep` waits.  `elapsed` are the seconds for which it has run before; they count
    towards its time limit.
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

    async def run(self) -> None:
        """Go on from wherever the response stands.  Returns once it is over."""
        seconds = self._config.limits.seconds
        try:
            async with asyncio.timeout(None if seconds is None else seconds - self._elapsed):
                await self._compact()
                await self._turn()
        except TimeoutError:
            if seconds is None:
                raise
            await self._fail(
                "time_limit_exceeded", f"The response took longer than its limit of {seconds:g} s."
            )
        except IllegalCommand as error:
            await self._fail("upstream_protocol", f"The model's answer makes no sense: {error.why}.")

    # -- One turn ------------------------------------------------------------------------------------------

    async def _compact(self) -> None:
        """Begin with a summary of the context, where one is due; from then on it stands for the context."""
        if not is_due(self._context, self._journal.state.request):
            return
        if not self._journal.state.output:
            await self._ask(CompactingModel(self._model, self._seal), ends=False)
        self._context = [*self._journal.state.context_items[:1], *last_turn(self._context)]

    async def _turn(self) -> None:
        """Have the model answer, unless it has."""
        state = self._journal.state
        if state.is_over:
            return None
        answered = state.call is not None and state.call.finish is not None
        compacted = any(item["type"] == "compaction" for item in state.call_items)
        if answered and not (compacted and len(self._context) > 1):
            return await self._journal.record(Finish(self._at()))
        return await self._ask(self._model)

    async def _ask(self, model: Model, *, ends: bool = True) -> None:
        """Call the model until it has answered, which `ends` the response, or until there is no hope."""
        state = self._journal.state
        mode = self._mode(state)
        failures, pause = 0, 0.0
        while True:
            state = self._journal.state
            said = said_of(state)
            if said and self._config.resume == "fail":
                return await self._fail("interrupted", "The model's answer was interrupted. Create it anew.")
            if state.call is not None and state.attempt + 1 >= TRIES_MAX:
                return await self._fail("interrupted", "The model's answer was interrupted too often.")
            if pause:
                await self._sleep(pause)
            first = state.call is None or state.call.finish is not None
            way = plan(said, mode, first=first)
            attempt = _Attempt(self._journal, self._config.upstream.name, way, self._at, ends=ends)
            _CALLS.add(1, self._config.upstream.name)
            if not first:
                _AGAIN.add(1, self._config.upstream.name)
            try:
                async with Intake(model, self._request(way, said)) as intake:
                    error = await attempt.run(intake)
            except Diverged:
                if has_calls(said):
                    return await attempt.end_with_calls()
                mode, pause = "prompt", 0.0
                await attempt.give_up(
                    "diverged", f"The model did not {way.resume} its words; it is asked to go on."
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
            case "repeat" if not (state.call and state.call.resume == "prompt"):
                # A model that worded its answer anew once is not asked to repeat it again.
                return "repeat"
            case _:
                return "prompt"

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

    def _at(self) -> int:
        return int(self._now())

    # -- What is asked -------------------------------------------------------------------------------------

    def _request(self, plan: Plan, said: Sequence[Said]) -> ModelRequest:
        state, config = self._journal.state, self._config
        request = state.request
        instructions = "\n\n".join(filter(None, (config.instructions, request.instructions)))
        tools = {(tool.get("type"), tool.get("name")): tool for tool in (*config.tools, *request.tools)}
        attempt = state.attempt + 1 if state.call else 0
        return ModelRequest(
            model=config.model,
            instructions=instructions or None,
            items=(*self._context, *plan.items),
            tools=tuple(tools.values()),
            tool_choice=request.tool_choice,
            parallel_tool_calls=request.parallel_tool_calls,
            text=request.text,
            reasoning=request.reasoning,
            temperature=request.temperature,
            top_p=request.top_p,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            top_logprobs=_top_logprobs(request),
            max_output_tokens=self._tokens_left(plan, said),
            user=request.user,
            goes_on=plan.resume == "prefix",
            seed=f"{state.id}:{state.call.number if state.call else 0}:{attempt}",
        )

    def _tokens_left(self, plan: Plan, said: Sequence[Said]) -> int | None:
        limits = (self._journal.state.request.max_output_tokens, self._config.limits.max_output_tokens)
        limit = min((limit for limit in limits if limit is not None), default=None)
        if limit is None or plan.resume not in ("prefix", "prompt"):
            return limit
        spent = sum(len(text) for one in said for text in one.texts.values()) // CHARS_PER_TOKEN
        return max(min(16, limit), limit - spent)  # Some upstreams refuse fewer than 16.


def _top_logprobs(request: ResponseRequest) -> int | None:
    """How many are wanted at each place; none are told to a client that did not ask."""
    asked = "message.output_text.logprobs" in request.include or bool(request.top_logprobs)
    return (request.top_logprobs or 0) if asked else None


class _Attempt:
    """One try of a call: what arrives becomes commands, and as few commits as there can be."""

    def __init__(
        self, journal: Journal, upstream: str, plan: Plan, at: Callable[[], int], *, ends: bool
    ) -> None:
        self.plan = plan
        self._ends = ends
        self._journal = journal
        self._upstream = upstream
        self._at = at
        self._waiting: list[Command] = []
        self._begun = False

    async def run(self, intake: Intake) -> ModelError | None:
        """Record what the model says.

        None once the response is finished, or why the call broke off; what was said last is then recorded
        by `give_up`.  Raises `Diverged`.
        """
        while True:
            events = await intake.take()
            self._add(events)
            if intake.error is not None:
                return intake.error
            if events and isinstance(events[-1], CallEnded):
                await self._commit(*([Finish(self._at())] if self._ends else []))
                return None
            # That a call was accepted shows nothing to anybody: it rides with the first words.
            if any(not isinstance(command, BeginCall) for command in self._waiting):
                await self._commit()

    async def give_up(self, code: str, message: str, *then: Command) -> None:
        """Record what was said last, and that and why this try is over."""
        ended = [EndCallFailed(code, message)] if self._begun else []
        await self._commit(*ended, *then)

    async def end_with_calls(self) -> None:
        """The model wants something else now, but whole function calls stand: the turn ends with them."""
        await self._commit(CloseItem(), RecordOutput((CallEnded("tool_calls", Usage()),)), Finish(self._at()))

    def _add(self, events: Sequence[ModelEvent]) -> None:
        said: list[ModelEvent] = []
        for event in events:
            if isinstance(event, CallStarted):
                self._begun = True
                self._waiting.append(
                    BeginCall(
                        self.plan.resume, self._upstream, event.upstream_request_id, event.request_digest
                    )
                )
            else:
                said.append(event)
        run: list[ModelEvent] = []
        for fitted in self.plan.seam.fit(said):
            if isinstance(fitted, CloseItem):
                self._flush(run)
                self._waiting.append(fitted)
                run = []
            else:
                run.append(fitted)
        self._flush(run)

    def _flush(self, run: Sequence[ModelEvent]) -> None:
        if run:
            self._waiting.append(RecordOutput(tuple(run)))

    async def _commit(self, *then: Command) -> None:
        commands, self._waiting = [*self._waiting, *then], []
        if commands:
            await self._journal.record(*commands)
