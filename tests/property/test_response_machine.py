"""The decider under any order of commands and of model output, Hypothesis choosing."""

from __future__ import annotations

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runtime.model import (
    ArgumentsDelta,
    CallEnded,
    FinishReason,
    ItemClosed,
    ItemKind,
    ItemOpened,
    ModelEvent,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    Usage,
)
from runtime.response import commands as c
from runtime.response import events as e
from runtime.response.aggregate import ENDINGS
from runtime.response.codec import decode
from runtime.response.errors import IllegalCommand
from runtime.response.items import unanswered
from runtime.response.projection import project
from runtime.response.request import ResponseRequest
from runtime.response.state import INITIAL, evolve, fold
from tests.conformance import check_event
from tests.depth import examples
from tests.running import ACTIVATE, FINISH, Running, begin, create

RESUMES: list[e.Resume] = ["first", "again", "prefix", "prompt", "repeat"]
ENDS: list[c.Command] = [FINISH, c.Fail(1, "server_error", "It broke."), c.Cancel(2, "key_1")]
TERMINAL = {"response.completed", "response.incomplete", "response.failed"}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
counts = st.integers(0, 99)
model_events: st.SearchStrategy[ModelEvent] = st.one_of(
    st.builds(
        ItemOpened,
        st.sampled_from(["message", "function_call", "custom_tool_call", "reasoning"]),
        texts,
        texts,
    ),
    st.builds(TextDelta, texts),
    st.builds(RefusalDelta, texts),
    st.builds(ArgumentsDelta, texts),
    st.builds(ReasoningDelta, texts),
    st.builds(SummaryDelta, texts, st.integers(0, 2)),
    st.builds(ItemClosed, st.none() | texts),
    st.builds(
        CallEnded,
        st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
        st.builds(Usage, counts, counts, counts, counts),
    ),
)
HOMES: dict[ItemKind, st.SearchStrategy[list[ModelEvent]]] = {
    "message": st.lists(st.builds(TextDelta, texts) | st.builds(RefusalDelta, texts), max_size=4),
    "function_call": st.lists(st.builds(ArgumentsDelta, texts), max_size=4),
    "custom_tool_call": st.lists(st.builds(ArgumentsDelta, texts), max_size=4),
    "reasoning": st.lists(
        st.builds(ReasoningDelta, texts) | st.builds(SummaryDelta, texts, st.integers(0, 2)), max_size=4
    ),
}


@st.composite
def sensible_output(draw: st.DrawFn) -> list[ModelEvent]:
    """An item as an adapter sends it, perhaps broken off, perhaps with the end of the call."""
    kind = draw(st.sampled_from(sorted(HOMES)))
    said: list[ModelEvent] = [ItemOpened(kind, "f", draw(texts))]
    said += draw(HOMES[kind])
    if draw(st.booleans()):
        said.append(ItemClosed())
    if draw(st.booleans()):
        said.append(CallEnded(draw(st.sampled_from(["stop", "length"])), Usage(1, 1)))
    return said


class ResponseMachine(RuleBasedStateMachine):
    """Anybody may ask for anything at any time; refusals change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.running = Running()
        self.checked = 0

    def ask(self, command: c.Command) -> None:
        try:
            self.running.obey(command)
        except IllegalCommand:
            return

    @initialize(queued=st.booleans(), store=st.booleans(), obfuscation=st.none() | st.just("seed"))
    def begin_with_a_response(self, queued: bool, store: bool, obfuscation: str | None) -> None:
        self.create(queued, store, obfuscation)
        self.activate()
        self.begin_call("first")

    @rule(queued=st.booleans(), store=st.booleans(), obfuscation=st.none() | st.just("seed"))
    def create(self, queued: bool, store: bool, obfuscation: str | None) -> None:
        self.ask(create(ResponseRequest("m", store=store), queued=queued, obfuscation=obfuscation))

    @rule()
    def activate(self) -> None:
        self.ask(ACTIVATE)

    @rule(resume=st.sampled_from(RESUMES))
    def begin_call(self, resume: e.Resume) -> None:
        self.ask(begin(resume))

    @rule(said=st.lists(model_events, max_size=6))
    def say_anything(self, said: list[ModelEvent]) -> None:
        self.ask(c.RecordOutput(said))

    @rule(said=sensible_output(), resume=st.sampled_from(RESUMES))
    def say_something_sensible(self, said: list[ModelEvent], resume: e.Resume) -> None:
        call = self.running.state.call
        if call is not None and not call.is_running:
            self.begin_call(resume)
        if self.running.state.open_item is not None:
            self.close_item()
        self.ask(c.RecordOutput(said))

    @rule(finishes=st.booleans())
    def run_a_tool(self, finishes: bool) -> None:
        waiting = unanswered(self.running.state.call_items)
        call_id = waiting[0]["call_id"] if waiting else "call_1"
        self.ask(c.FinishTool(call_id, "done") if finishes else c.StartTool(call_id))

    @rule()
    def fail_call(self) -> None:
        self.ask(c.EndCallFailed("upstream_timeout", "Silence."))

    @rule()
    def close_item(self) -> None:
        self.ask(c.CloseItem())

    @rule(ending=st.sampled_from(ENDS), patience=st.integers(0, 2))
    def end(self, ending: c.Command, patience: int) -> None:
        if patience == 0:  # Most runs should get somewhere first.
            self.ask(ending)

    @rule(finish=st.sampled_from(["stop", "length", "content_filter"]), patience=st.integers(0, 2))
    def finish(self, finish: FinishReason, patience: int) -> None:
        self.ask(c.RecordOutput([CallEnded(finish, Usage(1, 1))]))
        if patience == 0:
            self.ask(FINISH)

    @precondition(lambda self: self.running.state.is_over)
    @rule()
    def erase(self) -> None:
        self.ask(c.Erase(3, "key_1", "asked to"))

    @invariant()
    def replay_gives_the_same_state(self) -> None:
        """The log is all there is: folding what was recorded gives the state, byte for byte."""
        recorded = [event for record in self.running.records for event in decode(record)]
        assert fold(recorded) == self.running.state

    @invariant()
    def numbers_are_dense_and_events_conform(self) -> None:
        wire = self.running.wire
        assert [event.number for event in wire] == list(range(len(wire)))
        for event in wire[self.checked :]:
            check_event(event.data)
            assert orjson.loads(event.data)["sequence_number"] == event.number
        self.checked = len(wire)

    @invariant()
    def there_is_one_end_and_it_is_last(self) -> None:
        ends = [event.number for event in self.running.wire if event.type in TERMINAL]
        assert ends == ([len(self.running.wire) - 1] if self.running.state.is_over else [])

    @invariant()
    def every_item_that_began_is_done_once_all_is_over(self) -> None:
        of = [event.type for event in self.running.wire]
        still_open = of.count("response.output_item.added") - of.count("response.output_item.done")
        assert still_open == (self.running.state.open_item is not None)
        assert not (self.running.state.is_over and still_open)

    def teardown(self) -> None:
        """Every response ends; and what is slow to check is checked once: prefixes, and the digest."""
        self.ask(c.Cancel(2, "key_1"))
        self.there_is_one_end_and_it_is_last()
        self.every_item_that_began_is_done_once_all_is_over()
        self.numbers_are_dense_and_events_conform()
        state, shown = INITIAL, 0
        for event in self.running.events:
            wire = project(state, event)
            assert wire == self.running.wire[shown : shown + len(wire)]
            shown += len(wire)
            state = evolve(state, event)
            if isinstance(event, ENDINGS):
                assert event.shown == state.shown.digest
            if not isinstance(event, e.Erased):
                assert state.next_number == shown


ResponseMachine.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=25, deadline=None)
TestResponseMachine = ResponseMachine.TestCase
