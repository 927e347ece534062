"""The rules, command by command: given what happened, when this is asked, then that follows."""

from __future__ import annotations

import pickle

import pytest

from runtime.model import (
    ArgumentsDelta,
    CallEnded,
    CallStarted,
    FinishReason,
    ItemClosed,
    ItemOpened,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)
from runtime.response import commands as c
from runtime.response import events as e
from runtime.response.decider import decide
from runtime.response.errors import IllegalCommand
from runtime.response.request import ResponseRequest
from runtime.response.state import INITIAL, fold
from tests.given import given
from tests.golden.scenarios import say
from tests.running import ACTIVATE, CANCEL, FINISH, RESPONSE_ID, USAGE, begin, create

CREATED = decide(create(), INITIAL)[0]
QUEUED = decide(create(queued=True), INITIAL)[0]
ACTIVATED = e.ActivationStarted("host-1", "response-actors-1", "node-1", 42)
CALLED = e.ModelCallStarted(0, 0, "first", "simulated", "req_1", "00" * 32)
MESSAGE = e.ItemStarted("message")
HELLO = e.TextAppended(("Hel", "lo"))
STOPPED = e.ModelCallEnded("stop", USAGE)
COMPLETED = e.ResponseCompleted(FINISH.at, "")
CANCELLED = e.ResponseCancelled(CANCEL.at, CANCEL.by, "")
FAIL = c.Fail(5, "server_error", "It broke.")
FAILED = e.ResponseFailed(5, "server_error", "It broke.", "")
ERASE = c.Erase(6, "key_1", "asked to")
ERASED = e.Erased(6, "key_1", "asked to")
RUNNING = (CREATED, ACTIVATED, CALLED)


def test_create_records_all_that_was_asked() -> None:
    request = ResponseRequest(model="m", temperature=0.5)
    asked = create(request, queued=True, dialect="open_responses", obfuscation="s", opt_ins=("x",))
    expected = e.ResponseCreated(
        RESPONSE_ID,
        "default",
        "key_1",
        asked.at,
        request,
        asked.agent,
        queued=True,
        dialect="open_responses",
        obfuscation="s",
        opt_ins=("x",),
        code="0.1.0",
    )
    given().when(asked).then(expected)


@pytest.mark.parametrize("past", [(CREATED,), (CREATED, CANCELLED), (CREATED, CANCELLED, ERASED)])
def test_a_repeated_create_makes_no_second_history(past: tuple[e.Event, ...]) -> None:
    given(*past).when(create()).then_nothing()


@pytest.mark.parametrize(
    "command",
    [ACTIVATE, begin(), say(), c.EndCallFailed("x", "x"), c.CloseItem(), FINISH, FAIL, CANCEL, ERASE],
    ids=lambda command: type(command).__name__,
)
def test_nothing_can_be_asked_of_what_does_not_exist(command: c.Command) -> None:
    given().when(command).then_refused("that is new")


def test_activation_is_recorded_each_time() -> None:
    given(QUEUED).when(ACTIVATE).then(ACTIVATED)
    given(CREATED, ACTIVATED).when(ACTIVATE).then(ACTIVATED)


@pytest.mark.parametrize("command", [begin(), say(TextDelta("x")), c.CloseItem()])
def test_a_response_that_is_over_does_not_go_on(command: c.Command) -> None:
    given(CREATED, CANCELLED).when(command).then_refused("that is cancelled")


def test_a_queued_response_calls_no_model() -> None:
    given(QUEUED).when(begin()).then_refused("that is queued")


def test_calls_are_counted_by_turn_and_attempt() -> None:
    given(CREATED, ACTIVATED).when(begin()).then(CALLED)
    failed = e.ModelCallFailed("server_error", "cut")
    again = e.ModelCallStarted(0, 1, "again", "simulated", "req_1", "00" * 32)
    given(*RUNNING, failed).when(begin("again")).then(again)
    # A crash leaves no end of the attempt that it cut.
    given(*RUNNING, ACTIVATED).when(begin("again")).then(again)
    next_turn = e.ModelCallStarted(1, 0, "first", "simulated", "req_1", "00" * 32)
    given(*RUNNING, STOPPED).when(begin()).then(next_turn)


def test_neighbouring_deltas_become_one_event_and_keep_their_boundaries() -> None:
    given(*RUNNING).when(
        say(
            ItemOpened("reasoning", upstream_id="rs_up"),
            ReasoningDelta("a"),
            ReasoningDelta("b"),
            SummaryDelta("c"),
            SummaryDelta("d", 1),
            SummaryDelta("e", 1),
            ItemClosed("sealed"),
            ItemOpened("message"),
            TextDelta("f"),
            TextDelta(""),
            TextDelta("g"),
            RefusalDelta("h"),
            ItemClosed(),
            ItemOpened("function_call", "tool", "call_9"),
            ArgumentsDelta("{}"),
            ItemClosed(),
        )
    ).then(
        e.ItemStarted("reasoning", upstream_id="rs_up"),
        e.ReasoningAppended(("a", "b")),
        e.SummaryAppended(0, ("c",)),
        e.SummaryAppended(1, ("d", "e")),
        e.ItemEnded("completed", "sealed"),
        MESSAGE,
        e.TextAppended(("f", "g")),
        e.RefusalAppended(("h",)),
        e.ItemEnded(),
        e.ItemStarted("function_call", "tool", "call_9"),
        e.ArgumentsAppended(("{}",)),
        e.ItemEnded(),
    )


@pytest.mark.parametrize(
    ("said", "because"),
    [
        ((TextDelta("x"),), "a TextDelta while the open item is none"),
        ((ItemOpened("message"), ArgumentsDelta("x")), "ArgumentsDelta while the open item is message"),
        ((ItemOpened("message"), ItemOpened("reasoning")), "a reasoning opens while a message is open"),
        ((ItemClosed(),), "no item is open"),
        ((CallEnded("stop", USAGE), ItemOpened("message")), "the call has ended"),
        ((CallStarted(None, ""),), "BeginCall"),
    ],
)
def test_what_no_adapter_may_say_is_refused(said: tuple[object, ...], because: str) -> None:
    given(*RUNNING).when(say(*said)).then_refused(because)


@pytest.mark.parametrize("end", [STOPPED, e.ModelCallFailed("server_error", "cut")])
def test_output_needs_a_call_that_runs(end: e.Event) -> None:
    given(CREATED, ACTIVATED).when(say()).then_refused("no model call is running")
    given(*RUNNING, end).when(say(ItemOpened("message"))).then_refused("no model call is running")
    given(*RUNNING, end).when(c.EndCallFailed("x", "x")).then_refused("no model call is running")


@pytest.mark.parametrize("resume", ["prefix", "prompt"])
def test_a_resumed_message_goes_on_in_its_item(resume: e.Resume) -> None:
    """The upstream opens a message anew; for the client it is the same one (invariant 7)."""
    past = (*RUNNING, MESSAGE, HELLO)
    more = say(ItemOpened("message"), TextDelta("!"), ItemClosed())
    given(*past).when(begin(resume), more).then(e.TextAppended(("!",)), e.ItemEnded())
    given(*past).when(begin("again"), more).then_refused("a message opens while a message is open")


@pytest.mark.parametrize(
    ("finish", "status"),
    [
        ("stop", "completed"),
        ("tool_calls", "completed"),
        ("length", "incomplete"),
        ("content_filter", "incomplete"),
    ],
)
def test_what_is_open_when_the_upstream_stops(finish: FinishReason, status: str) -> None:
    """An upstream that was broken off leaves its item incomplete; one that stopped forgot to close it."""
    ended = e.ItemEnded("completed" if status == "completed" else "incomplete")
    given(*RUNNING, MESSAGE, HELLO).when(say(CallEnded(finish, USAGE))).then(
        ended, e.ModelCallEnded(finish, USAGE)
    )


@pytest.mark.parametrize("given_id", ["", "x" * 65, "call_in", "call_out"])
def test_a_call_id_that_cannot_pair_is_replaced_by_a_derived_one(given_id: str) -> None:
    asked = ResponseRequest(
        model="m",
        input=({"type": "function_call", "call_id": "call_in", "name": "f", "arguments": "{}"},),
    )
    past = [*decide(create(asked), INITIAL), ACTIVATED, CALLED]
    past += [e.ItemStarted("function_call", "f", "call_out"), e.ItemEnded()]
    opened = decide(say(ItemOpened("function_call", "f", given_id)), fold(past))
    assert opened == [e.ItemStarted("function_call", "f", "")]
    item = fold([*past, *opened]).open_item
    assert item is not None
    assert item.call_id == "call_" + "5e" * 16 + "000100"


def test_a_failed_call_leaves_its_item_open_for_the_next_attempt() -> None:
    given(*RUNNING, MESSAGE, HELLO).when(c.EndCallFailed("upstream_timeout", "Silence.")).then(
        e.ModelCallFailed("upstream_timeout", "Silence.")
    )


def test_close_item_ends_what_is_open_and_nothing_else() -> None:
    given(*RUNNING, MESSAGE).when(c.CloseItem()).then(e.ItemEnded("incomplete"))
    given(*RUNNING).when(c.CloseItem()).then_nothing()


CALLED_F = (e.ItemStarted("function_call", "f", "call_1"), e.ArgumentsAppended(("{}",)), e.ItemEnded())
ASKED = (*RUNNING, *CALLED_F, e.ModelCallEnded("tool_calls", USAGE))
KEY = f"fc_{RESPONSE_ID.removeprefix('resp_')}000000"
INTENT = e.ToolStarted("call_1", "f", KEY)
OUTCOME = e.ToolFinished("call_1", "done")


def test_a_tool_starts_with_the_key_of_its_call_and_again_with_the_same() -> None:
    given(*ASKED).when(c.StartTool("call_1")).then(INTENT)
    again = e.ToolStarted("call_1", "f", KEY, attempt=1)
    given(*ASKED, INTENT, ACTIVATED).when(c.StartTool("call_1")).then(again)


def test_an_outcome_is_recorded_whether_its_tool_ran_or_not() -> None:
    given(*ASKED, INTENT).when(c.FinishTool("call_1", "done")).then(OUTCOME)
    refused = c.FinishTool("call_1", "no", "refused")
    given(*ASKED).when(refused).then(e.ToolFinished("call_1", "no", "refused"))


@pytest.mark.parametrize("command", [c.StartTool("call_1"), c.FinishTool("call_1", "done")])
@pytest.mark.parametrize(
    "past",
    [
        RUNNING,
        (*RUNNING, *CALLED_F),
        (*RUNNING, *CALLED_F[:-1], e.ModelCallEnded("length", USAGE)),
        (*ASKED, INTENT, OUTCOME),
        (*ASKED, e.ModelCallStarted(1, 0, "first", "simulated", None, "00" * 32)),
        (*ASKED, CANCELLED),
    ],
    ids=["no call", "the model still talks", "half a call", "answered", "a further turn", "over"],
)
def test_no_tool_runs_but_for_a_whole_call_that_waits(past: tuple[e.Event, ...], command: c.Command) -> None:
    given(*past).when(command).then_refused("no call waits for it")


@pytest.mark.parametrize(
    ("finish", "ending"),
    [
        ("stop", COMPLETED),
        ("tool_calls", COMPLETED),
        ("length", e.ResponseIncomplete(FINISH.at, "max_output_tokens", "")),
        ("content_filter", e.ResponseIncomplete(FINISH.at, "content_filter", "")),
    ],
)
def test_the_last_call_decides_how_it_finishes(finish: FinishReason, ending: e.Event) -> None:
    given(*RUNNING, e.ModelCallEnded(finish, USAGE)).when(FINISH).then(ending)


def test_what_ends_early_says_why() -> None:
    end = e.ResponseIncomplete(FINISH.at, "max_messages", "")
    given(*ASKED).when(c.Finish(FINISH.at, "max_messages")).then(end)


def test_finish_needs_the_end_of_the_call() -> None:
    given(*RUNNING).when(FINISH).then_refused("its model call has not ended")
    given(*RUNNING, e.ModelCallFailed("x", "x")).when(FINISH).then_refused("its model call has not ended")
    given(QUEUED).when(FINISH).then_refused("that is queued")


def test_a_response_without_any_call_can_be_complete() -> None:
    given(CREATED, ACTIVATED).when(FINISH).then(COMPLETED)


@pytest.mark.parametrize(("command", "ending"), [(CANCEL, CANCELLED), (FAIL, FAILED)])
def test_an_early_end_closes_what_is_open(command: c.Command, ending: e.Event) -> None:
    given(*RUNNING, MESSAGE, HELLO).when(command).then(e.ItemEnded("incomplete"), ending)
    given(*RUNNING).when(command).then(ending)
    given(QUEUED).when(command).then(ending)


@pytest.mark.parametrize("ending", [COMPLETED, FAILED, CANCELLED])
@pytest.mark.parametrize("command", [FINISH, FAIL, CANCEL, ACTIVATE])
def test_whoever_ends_it_first_wins(ending: e.Event, command: c.Command) -> None:
    given(*RUNNING, STOPPED, ending).when(command).then_nothing()


def test_the_end_records_the_digest_of_all_that_was_shown() -> None:
    past = (*RUNNING, MESSAGE, HELLO)
    decided = decide(CANCEL, fold(past))
    ending = decided[-1]
    assert isinstance(ending, e.ResponseCancelled)
    assert ending.shown == fold([*past, *decided]).shown.digest


def test_only_what_is_over_can_be_erased_and_only_once() -> None:
    given(*RUNNING).when(ERASE).then_refused("that is in_progress")
    given(CREATED, CANCELLED).when(ERASE).then(ERASED)
    given(CREATED, CANCELLED, ERASED).when(ERASE).then_nothing()


def test_refusals_survive_pickling() -> None:
    """They cross processes with the command that was refused."""
    refused = IllegalCommand(CANCEL, "new", "why")
    again = pickle.loads(pickle.dumps(refused))
    assert (str(again), again.command) == (str(refused), CANCEL)
