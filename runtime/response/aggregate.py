"""What is so about a response, and how each event changes it: the structural half of the fold.

`runtime.response.state` adds what was shown.  Nothing here refuses an event: it happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, assert_never

from runtime.model import JSON, FinishReason, ItemKind, Usage
from runtime.response import events as e
from runtime.response import items
from runtime.response.request import ResponseRequest
from runtime.response.wire import Shown

PartKind = Literal["output_text", "refusal", "arguments", "reasoning_text", "summary_text"]
Ending = e.ResponseCompleted | e.ResponseIncomplete | e.ResponseFailed | e.ResponseCancelled
Appended = e.TextAppended | e.RefusalAppended | e.ArgumentsAppended | e.ReasoningAppended | e.SummaryAppended

ENDINGS: Final = (e.ResponseCompleted, e.ResponseIncomplete, e.ResponseFailed, e.ResponseCancelled)


class Status(StrEnum):
    """Where a response stands.  `new` and `erased` are ours; clients never see them."""

    NEW = "new"
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    INCOMPLETE = "incomplete"
    CANCELLED = "cancelled"
    ERASED = "erased"


_OVER: Final = frozenset(
    {Status.COMPLETED, Status.FAILED, Status.INCOMPLETE, Status.CANCELLED, Status.ERASED}
)


class Part(NamedTuple):
    """A piece of an item: a content part, a summary part, or a function call's arguments."""

    kind: PartKind
    text: str
    source: int = 0
    """The upstream's index of a summary part."""
    logprobs: tuple[Mapping[str, JSON], ...] = ()
    """Of a text's tokens, where they were asked for."""


class OpenItem(NamedTuple):
    """The output item that is being said.  Only its last part grows."""

    kind: ItemKind
    id: str
    output_index: int
    """Its place in the output."""
    name: str
    call_id: str
    upstream_id: str | None
    parts: tuple[Part, ...] = ()
    namespace: str | None = None
    action: Mapping[str, JSON] | None = None

    @property
    def text(self) -> str:
        """What the model said so far: a message's text, a call's arguments, or raw reasoning."""
        kind = {"message": "output_text", "reasoning": "reasoning_text"}.get(self.kind, "arguments")
        return "".join(part.text for part in self.parts if part.kind == kind)


class Call(NamedTuple):
    """The current turn of the agent loop."""

    number: int
    """Counts the turns from 0."""
    attempt: int
    """Counts the tries of this turn from 0."""
    resume: e.Resume
    upstream: str
    first_item: int
    """`output_index` of the first item that this turn says, over all its tries."""
    said_before: int = 0
    """`ResponseState.said` when this try began."""
    upstream_request_id: str | None = None
    finish: FinishReason | None = None
    """How the upstream ended the turn by itself, or None."""
    failure: e.ModelCallFailed | None = None
    """How this try broke off, or None."""

    @property
    def is_running(self) -> bool:
        """Whether more may come from this try."""
        return self.finish is None and self.failure is None


class ResponseState(NamedTuple):
    """The fold of a response's events.

    Named tuples, here and above, because a changed copy of one costs a fifth of a frozen dataclass's: one is
    made for every batch of tokens.
    """

    status: Status = Status.NEW
    created: e.ResponseCreated | None = None
    output: tuple[dict[str, Any], ...] = ()
    """Finished items in the Responses API's shapes, as clients see them."""
    origins: tuple[dict[str, Any] | None, ...] = ()
    """For each of `output`: what the upstream gave with it and only that upstream may see again."""
    open_item: OpenItem | None = None
    call: Call | None = None
    usage: Usage = Usage()
    """Tokens of all turns that ended, and of tries that were cut off, as far as they are known."""
    said: int = 0
    """Deltas so far."""
    ending: Ending | None = None
    tools: Mapping[str, e.ToolStarted] = MappingProxyType({})
    """Tools that run, or ran when their host died, by the id of their call."""
    activation: e.ActivationStarted | None = None
    """Who runs it, or ran it last."""
    shown: Shown = Shown()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be shown."""
        return self.status in _OVER

    @property
    def next_number(self) -> int:
        """`sequence_number` of the next wire event."""
        return self.shown.count

    @property
    def id(self) -> str:
        """The response's id."""
        return self._created.id

    @property
    def project(self) -> str:
        """The tenant."""
        return self._created.project

    @property
    def request(self) -> ResponseRequest:
        """What was asked."""
        return self._created.request

    @property
    def agent(self) -> Mapping[str, JSON]:
        """The resolved configuration that it runs with."""
        return self._created.agent

    @property
    def attempt(self) -> int:
        """The try of the current turn; 0 before the first."""
        return self.call.attempt if self.call else 0

    @property
    def begun_call(self) -> Call | None:
        """The current turn as long as its upstream has not ended it."""
        return self.call if self.call is not None and self.call.finish is None else None

    @property
    def unreported(self) -> int:
        """Deltas of the current try, whose upstream told no usage so far: about as many tokens."""
        return self.said - self.begun_call.said_before if self.begun_call is not None else 0

    @property
    def turn(self) -> int:
        """The number of the turn that runs, or comes next."""
        return 0 if self.call is None else self.call.number + (self.call.finish is not None)

    @property
    def context_items(self) -> tuple[dict[str, Any], ...]:
        """The finished items as a model is told of them: with `_upstream` where there is one."""
        return tuple(
            item if origin is None else {**item, "_upstream": origin}
            for item, origin in zip(self.output, self.origins, strict=True)
        )

    @property
    def call_items(self) -> tuple[dict[str, Any], ...]:
        """The items that the current turn finished, in whatever try.  The open one is not among them."""
        return self.output[self.call.first_item :] if self.call else ()

    @property
    def _created(self) -> e.ResponseCreated:
        assert self.created is not None, f"a response that is {self.status} has no request"
        return self.created


INITIAL: Final = ResponseState()


def apply(state: ResponseState, event: e.Event) -> ResponseState:
    """The state after `event`, but for what was shown."""
    match event:
        case (
            e.TextAppended()
            | e.RefusalAppended()
            | e.ArgumentsAppended()
            | e.ReasoningAppended()
            | e.SummaryAppended()
        ):
            said = state.said + len(event.deltas)
            return state._replace(open_item=_append(state.open_item, event), said=said)
        case e.ItemStarted():
            return state._replace(open_item=_start(state, event))
        case e.ItemEnded():
            return _end(state, event)
        case e.ResponseCreated():
            return state._replace(created=event, status=Status.QUEUED if event.queued else Status.IN_PROGRESS)
        case e.ActivationStarted():
            return state._replace(activation=event, status=Status.IN_PROGRESS)
        case e.ModelCallStarted():
            usage = state.usage + Usage(output_tokens=event.unreported)
            return state._replace(call=_call(state, event), usage=usage)
        case e.ModelCallEnded():
            call = None if state.call is None else state.call._replace(finish=event.finish)
            return state._replace(call=call, usage=state.usage + event.usage)
        case e.ModelCallFailed():
            return state._replace(call=None if state.call is None else state.call._replace(failure=event))
        case e.ToolStarted():
            return state._replace(tools={**state.tools, event.call_id: event})
        case e.ToolFinished():
            return _finish_tool(state, event)
        case e.ResponseCompleted():
            return state._replace(ending=event, status=Status.COMPLETED)
        case e.ResponseIncomplete():
            return state._replace(ending=event, status=Status.INCOMPLETE)
        case e.ResponseFailed():
            return state._replace(ending=event, status=Status.FAILED)
        case e.ResponseCancelled():
            return state._replace(ending=event, status=Status.CANCELLED)
        case e.Erased():
            # Nothing of it may be left, whether it was read before its erasure or after.
            return ResponseState(status=Status.ERASED)
        case _:
            assert_never(event)


PART_KINDS: Final[Mapping[type, PartKind]] = {
    e.TextAppended: "output_text",
    e.RefusalAppended: "refusal",
    e.ArgumentsAppended: "arguments",
    e.ReasoningAppended: "reasoning_text",
    e.SummaryAppended: "summary_text",
}


def growing_part(item: OpenItem, event: Appended) -> Part | None:
    """The open part that `event` goes on with, or None if it begins a new one."""
    if item.parts:
        last = item.parts[-1]
        source = event.index if isinstance(event, e.SummaryAppended) else 0
        if last.kind == PART_KINDS[type(event)] and last.source == source:
            return last
    return None


def wire_index(item: OpenItem, kind: PartKind, place: int) -> int:
    """`content_index` or `summary_index` of the part at `place`: each of the two lists counts from 0."""
    if place == 0:
        return 0
    summary = kind == "summary_text"
    return sum((part.kind == "summary_text") == summary for part in item.parts[:place])


def item_json(item: OpenItem, status: str, encrypted_content: str | None = None) -> dict[str, Any]:
    """The item in the Responses API's shape."""
    head: dict[str, Any] = {"id": item.id, "type": item.kind, "status": status}
    match item.kind:
        case "message":
            parts = item.parts or (Part("output_text", ""),)
            return head | {"role": "assistant", "content": [part_json(part) for part in parts]}
        case "function_call":
            call = head | {"call_id": item.call_id, "name": item.name, "arguments": item.text}
            return call if item.namespace is None else call | {"namespace": item.namespace}
        case "custom_tool_call":
            call = head | {"call_id": item.call_id, "name": item.name, "input": item.text}
            return call if item.namespace is None else call | {"namespace": item.namespace}
        case "shell_call" | "local_shell_call" | "apply_patch_call":
            return head | {"call_id": item.call_id, items.ACTIONS[item.kind]: item.action}
        case "compaction":
            return {"id": item.id, "type": item.kind, "encrypted_content": encrypted_content or ""}
        case "reasoning":
            summary = [part_json(part) for part in item.parts if part.kind == "summary_text"]
            content = [part_json(part) for part in item.parts if part.kind == "reasoning_text"]
            head["summary"] = summary
            # Omitted, never null (PROTOCOL.md, section c).
            if content:
                head["content"] = content
            if encrypted_content is not None:
                head["encrypted_content"] = encrypted_content
            return head
        case _:
            assert_never(item.kind)


def part_json(part: Part) -> dict[str, Any]:
    """The part in the Responses API's shape."""
    match part.kind:
        case "output_text":
            text = {"type": "output_text", "text": part.text, "annotations": []}
            return {**text, "logprobs": part.logprobs} if part.logprobs else text
        case "refusal":
            return {"type": "refusal", "refusal": part.text}
        case _:
            return {"type": part.kind, "text": part.text}


def tool_output(state: ResponseState, event: e.ToolFinished, status: str = "completed") -> dict[str, Any]:
    """The item that tells of a call's outcome, in the Responses API's shape."""
    output = event.output if status == "completed" else ""
    return items.tool_output(state.id, len(state.output), event.call_id, output, status)


def taken_call_ids(state: ResponseState) -> Iterator[str]:
    """The call ids that a new function call may not have: those of this response's input and output."""
    yield from (items.call_of(item) for item in state.request.input if item.get("type") in items.CALLS)
    yield from (items.call_of(item) for item in state.output if item["type"] in items.CALLS)


def _start(state: ResponseState, event: e.ItemStarted) -> OpenItem:
    index, attempt = len(state.output), state.attempt
    call_id = event.call_id
    if event.kind in items.CALLS and not call_id:
        call_id = items.call_id(state.id, index, attempt)
    return OpenItem(
        kind=event.kind,
        id=items.output_id(state.id, event.kind, index, attempt),
        output_index=index,
        name=event.name,
        call_id=call_id,
        upstream_id=event.upstream_id,
        namespace=event.namespace,
        action=event.action,
    )


def _append(item: OpenItem | None, event: Appended) -> OpenItem | None:
    if item is None:
        return None
    text = "".join(event.deltas)
    logprobs: tuple[Mapping[str, JSON], ...] = ()
    if isinstance(event, e.TextAppended) and event.logprobs:
        logprobs = tuple(one for of_delta in event.logprobs for one in of_delta)
    last = growing_part(item, event)
    if last is not None:
        grown = Part(last.kind, last.text + text, last.source, last.logprobs + logprobs)
        return item._replace(parts=(*item.parts[:-1], grown))
    source = event.index if isinstance(event, e.SummaryAppended) else 0
    return item._replace(parts=(*item.parts, Part(PART_KINDS[type(event)], text, source, logprobs)))


def _end(state: ResponseState, event: e.ItemEnded) -> ResponseState:
    item = state.open_item
    if item is None:
        return state
    visible = "reasoning.encrypted_content" in state.request.include
    encrypted = event.sealed or (event.encrypted_content if visible else None)
    finished = item_json(item, event.status, encrypted)
    return state._replace(
        output=(*state.output, finished),
        origins=(*state.origins, _origin(state, item, event)),
        open_item=None,
    )


def _finish_tool(state: ResponseState, event: e.ToolFinished) -> ResponseState:
    return state._replace(
        output=(*state.output, tool_output(state, event)),
        origins=(*state.origins, None),
        tools={call_id: tool for call_id, tool in state.tools.items() if call_id != event.call_id},
    )


def _origin(state: ResponseState, item: OpenItem, event: e.ItemEnded) -> dict[str, Any] | None:
    if event.summary is not None:
        return {"summary": event.summary, "replaces": True}
    if item.upstream_id is None and event.encrypted_content is None:
        return None
    origin: dict[str, Any] = {"name": state.call.upstream if state.call else ""}
    if item.upstream_id is not None:
        origin["id"] = item.upstream_id
    if event.encrypted_content is not None:
        origin["encrypted_content"] = event.encrypted_content
    return origin


def _call(state: ResponseState, event: e.ModelCallStarted) -> Call:
    before = state.call
    again = before is not None and before.number == event.call
    return Call(
        number=event.call,
        attempt=event.attempt,
        resume=event.resume,
        upstream=event.upstream,
        first_item=before.first_item if before is not None and again else len(state.output),
        said_before=state.said,
        upstream_request_id=event.upstream_request_id,
    )
