"""What happened to a response: the facts that its stream holds.

The names in `runtime.response.codec` are a file format: a class may be renamed, a stored name never.  Events
are compact: nothing a fold can derive is in them (no text twice, no ids, no sequence numbers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from runtime.model import JSON, FinishReason, ItemKind, Usage
from runtime.response.request import ResponseRequest

Resume = Literal["first", "again", "prefix", "prompt", "repeat"]
"""How a model call relates to what is recorded: the first try, again from nothing, or a continuation."""

ToolFailure = Literal["failed", "timeout", "refused", "outcome_unknown"]
"""Why a call has no output of its tool: it failed, took too long, was not made, or nobody knows."""


@dataclass(frozen=True, slots=True)
class ResponseCreated:
    """Somebody asked for a response.  Always version 0."""

    id: str
    project: str
    key_id: str | None
    """Who asked; never the key."""
    created_at: int
    """Seconds since 1970 UTC; shown to clients."""
    request: ResponseRequest
    agent: Mapping[str, JSON]
    """The resolved model or agent configuration, without secrets: what recovery opens the model with."""
    queued: bool
    """It waits for a slot, or runs in the background: clients see `queued` first."""
    projection: int = 1
    """Version of `project` that turns this stream into wire events, for ever."""
    dialect: Literal["openai", "open_responses"] = "openai"
    obfuscation: str | None = None
    """Seed of the obfuscation of deltas, or None for no obfuscation."""
    opt_ins: tuple[str, ...] = ()
    """Vendor events the request asked for."""
    code: str = ""
    """Version of Rayspond that accepted it."""


@dataclass(frozen=True, slots=True)
class ActivationStarted:
    """An actor began to run the response; the first one makes it `in_progress`."""

    host: str
    """Incarnation id of the host."""
    actor: str
    """Name of the Ray actor."""
    node: str
    pid: int


@dataclass(frozen=True, slots=True)
class ModelCallStarted:
    """An upstream accepted a call."""

    call: int
    """Counts the turns of the agent loop, from 0."""
    attempt: int
    """Counts the tries of this call, from 0."""
    resume: Resume
    upstream: str
    upstream_request_id: str | None
    request_digest: str
    unreported: int = 0
    """Deltas of the try before, which was cut off before its upstream told what it used."""


@dataclass(frozen=True, slots=True)
class ItemStarted:
    """An output item began."""

    kind: ItemKind
    name: str = ""
    call_id: str = ""
    upstream_id: str | None = None
    namespace: str | None = None
    action: Mapping[str, JSON] | None = None


@dataclass(frozen=True, slots=True)
class TextAppended:
    """More text of the open message; one wire event a delta."""

    deltas: tuple[str, ...]
    logprobs: tuple[Sequence[Mapping[str, JSON]], ...] = ()
    """Of the tokens of each delta; nothing at all where nobody asked for them."""


@dataclass(frozen=True, slots=True)
class RefusalAppended:
    """More of the open message's refusal."""

    deltas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArgumentsAppended:
    """More of the open function call's arguments, or of the open custom tool call's input."""

    deltas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReasoningAppended:
    """More of the open reasoning item's raw text."""

    deltas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SummaryAppended:
    """More of one part of the open reasoning item's summary."""

    index: int
    deltas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ItemEnded:
    """The open item is over."""

    status: Literal["completed", "incomplete"] = "completed"
    encrypted_content: str | None = None
    """The upstream's."""
    sealed: str | None = None
    """Ours, which clients see in the place of the upstream's."""
    summary: str | None = None
    """What a compaction says."""


@dataclass(frozen=True, slots=True)
class ModelCallEnded:
    """The upstream finished the call by itself."""

    finish: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class ModelCallFailed:
    """The call broke off or was refused; what follows says whether it is tried again."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool that the server runs is about to run: the intent, recorded before any effect."""

    call_id: str
    """Of the function call that asks for it."""
    name: str
    key: str
    """The same in every attempt, so that a tool which is idempotent does nothing twice."""
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """What the model is told of a call, whether its tool ran or not: the outcome."""

    call_id: str
    output: str
    error: ToolFailure | None = None


@dataclass(frozen=True, slots=True)
class ResponseCompleted:
    """The answer is whole."""

    at: int
    """Seconds since 1970 UTC."""
    shown: str
    """Hex SHA-256 over the data of all wire events, this one's included: see `runtime.response.wire`."""


@dataclass(frozen=True, slots=True)
class ResponseIncomplete:
    """The answer ends early, for a reason the client is told (`max_output_tokens`, `content_filter`)."""

    at: int
    reason: str
    shown: str


@dataclass(frozen=True, slots=True)
class ResponseFailed:
    """There is no answer; `code` and `message` are the client's."""

    at: int
    code: str
    message: str
    shown: str


@dataclass(frozen=True, slots=True)
class ResponseCancelled:
    """Somebody ended it."""

    at: int
    by: str
    """A key id, or `client_gone`."""
    shown: str


@dataclass(frozen=True, slots=True)
class Erased:
    """The payloads before this event are gone.  Recorded under the log's own name for it."""

    at: int
    by: str
    """A key id, `retention` or `store:false`."""
    reason: str


Event = (
    ResponseCreated
    | ActivationStarted
    | ModelCallStarted
    | ItemStarted
    | TextAppended
    | RefusalAppended
    | ArgumentsAppended
    | ReasoningAppended
    | SummaryAppended
    | ItemEnded
    | ModelCallEnded
    | ModelCallFailed
    | ToolStarted
    | ToolFinished
    | ResponseCompleted
    | ResponseIncomplete
    | ResponseFailed
    | ResponseCancelled
    | Erased
)
