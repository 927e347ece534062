"""One try of a model call, and what of it is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runtime.intake import Intake
from runtime.journal import Journal
from runtime.model import CallEnded, CallStarted, ModelError, ModelEvent, Usage
from runtime.response.commands import BeginCall, CloseItem, Command, EndCallFailed, RecordOutput
from runtime.resume import Plan


class Attempt:
    """One try of a call: what arrives becomes commands, and as few commits as there can be."""

    def __init__(
        self, journal: Journal, upstream: str, plan: Plan, ending: Callable[[], Sequence[Command]]
    ) -> None:
        self.plan = plan
        self._journal = journal
        self._upstream = upstream
        self._ending = ending
        self._waiting: list[Command] = []
        self._begun = False

    async def run(self, intake: Intake) -> ModelError | None:
        """Record what the model says.

        None once the call has ended, what `ending` gives recorded with it; or why it broke off: what was said
        last is then recorded by `give_up`.  Raises `Diverged`.
        """
        while True:
            events = await intake.take()
            self._add(events)
            if intake.error is not None:
                return intake.error
            if events and isinstance(events[-1], CallEnded):
                await self._commit(*self._ending())
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
        await self._commit(CloseItem(), RecordOutput((CallEnded("tool_calls", Usage()),)), *self._ending())

    def _add(self, events: Sequence[ModelEvent]) -> None:
        said: list[ModelEvent] = []
        for event in events:
            if isinstance(event, CallStarted):
                self._begun = True
                self._waiting.append(
                    BeginCall(
                        self.plan.resume,
                        self._upstream,
                        event.upstream_request_id,
                        event.request_digest,
                        unreported=self._journal.state.unreported,
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
