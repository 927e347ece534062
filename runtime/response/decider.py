"""The rules: what happens if we obey a command now?

`decide` reads no clock, makes no ids and does no I/O.  What is already so decides nothing, so that a repeated
command writes nothing; what cannot be raises `IllegalCommand`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, assert_never

from runtime import model as m
from runtime.response import commands as c
from runtime.response import events as e
from runtime.response.aggregate import Ending, ResponseState, Status
from runtime.response.errors import IllegalCommand
from runtime.response.items import unanswered
from runtime.response.projection import project
from runtime.response.recording import decide_output
from runtime.response.state import fold

_REASONS: Final[Mapping[m.FinishReason, str]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


def decide(command: c.Command, state: ResponseState) -> list[e.Event]:
    """The events that follow from `command`; none where it changes nothing.  Raises `IllegalCommand`."""
    match command:
        case c.Create():
            return _create(command, state)
        case c.Cancel():
            return _cancel(command, state)
        case c.Finish():
            return _finish(command, state)
        case c.Fail():
            return _fail(command, state)
        case c.Erase():
            return _erase(command, state)
        case c.Activate():
            return _activate(command, state)
        case c.BeginCall():
            return [_begin_call(command, state)]
        case c.RecordOutput():
            _refuse_unless(_call_is_running(state), command, state, "no model call is running")
            return decide_output(command, state)
        case c.EndCallFailed():
            _refuse_unless(_call_is_running(state), command, state, "no model call is running")
            return [e.ModelCallFailed(command.code, command.message)]
        case c.StartTool():
            return [_start_tool(command, state)]
        case c.FinishTool():
            _refuse_unless(_is_due(command.call_id, state), command, state, "no call waits for it")
            return [e.ToolFinished(command.call_id, command.output, command.error)]
        case c.CloseItem():
            _refuse_unless(state.status == Status.IN_PROGRESS, command, state)
            return _close(state)
        case _:
            assert_never(command)


def _create(command: c.Create, state: ResponseState) -> list[e.Event]:
    if state.status != Status.NEW:
        return []
    return [
        e.ResponseCreated(
            id=command.id,
            project=command.project,
            key_id=command.key_id,
            created_at=command.at,
            request=command.request,
            agent=command.agent,
            queued=command.queued,
            dialect=command.dialect,
            obfuscation=command.obfuscation,
            opt_ins=command.opt_ins,
            code=command.code,
        )
    ]


def _activate(command: c.Activate, state: ResponseState) -> list[e.Event]:
    if state.is_over:
        return []  # Whoever ended it, while a host made ready to run it, has won.
    _refuse_unless(state.status != Status.NEW, command, state)
    return [e.ActivationStarted(command.host, command.actor, command.node, command.pid)]


def _begin_call(command: c.BeginCall, state: ResponseState) -> e.ModelCallStarted:
    _refuse_unless(state.status == Status.IN_PROGRESS, command, state)
    before = state.call
    if before is None:
        number, attempt = 0, 0
    elif before.finish is not None:
        number, attempt = before.number + 1, 0
    else:
        number, attempt = before.number, before.attempt + 1
    return e.ModelCallStarted(
        call=number,
        attempt=attempt,
        resume=command.resume,
        upstream=command.upstream,
        upstream_request_id=command.upstream_request_id,
        request_digest=command.request_digest,
        unreported=command.unreported,
    )


def _start_tool(command: c.StartTool, state: ResponseState) -> e.ToolStarted:
    _refuse_unless(_is_due(command.call_id, state), command, state, "no call waits for it")
    before = state.tools.get(command.call_id)
    if before is not None:
        return replace(before, attempt=before.attempt + 1)
    call = next(item for item in unanswered(state.call_items) if item["call_id"] == command.call_id)
    return e.ToolStarted(command.call_id, call["name"], key=call["id"])


def _is_due(call_id: str, state: ResponseState) -> bool:
    ended = state.call is not None and state.call.finish is not None
    waiting = (item["call_id"] for item in unanswered(state.call_items) if item["type"] == "function_call")
    return state.status == Status.IN_PROGRESS and ended and call_id in waiting


def _finish(command: c.Finish, state: ResponseState) -> list[e.Event]:
    if state.is_over:
        return []  # Whoever ended it first has won.
    _refuse_unless(state.status == Status.IN_PROGRESS, command, state)
    finish = state.call.finish if state.call else "stop"
    _refuse_unless(finish is not None, command, state, "its model call has not ended")
    assert finish is not None
    reason = command.reason or _REASONS.get(finish)
    if reason is not None:
        return _end(state, e.ResponseIncomplete(command.at, reason, shown=""))
    return _end(state, e.ResponseCompleted(command.at, shown=""))


def _fail(command: c.Fail, state: ResponseState) -> list[e.Event]:
    if state.is_over:
        return []  # Whoever ended it first has won.
    _refuse_unless(state.status != Status.NEW, command, state)
    return _end(state, e.ResponseFailed(command.at, command.code, command.message, shown=""))


def _cancel(command: c.Cancel, state: ResponseState) -> list[e.Event]:
    if state.is_over:
        return []  # Whoever ended it first has won.
    _refuse_unless(state.status != Status.NEW, command, state)
    return _end(state, e.ResponseCancelled(command.at, command.by, shown=""))


def _erase(command: c.Erase, state: ResponseState) -> list[e.Event]:
    if state.status == Status.ERASED:
        return []
    _refuse_unless(state.is_over, command, state)
    return [e.Erased(command.at, command.by, command.reason)]


def _call_is_running(state: ResponseState) -> bool:
    return state.status == Status.IN_PROGRESS and state.call is not None and state.call.is_running


def _close(state: ResponseState) -> list[e.Event]:
    return [e.ItemEnded("incomplete")] if state.open_item is not None else []


def _end(state: ResponseState, ending: Ending) -> list[e.Event]:
    """Close what is open, then end; the end names the digest of all that was shown, itself included."""
    closing = _close(state)
    state = fold(closing, state)
    shown = state.shown.plus(project(state, ending)).digest
    return [*closing, replace(ending, shown=shown)]


def _refuse_unless(allowed: bool, command: c.Command, state: ResponseState, why: str = "") -> None:
    if not allowed:
        raise IllegalCommand(command, state.status.value, why)
