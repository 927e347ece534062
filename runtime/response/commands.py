"""What may be asked of a response.  Time and ids come in with the command; `decide` reads no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from runtime.model import JSON, ModelEvent
from runtime.response.events import Resume, ToolFailure
from runtime.response.request import ResponseRequest


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's key for its request: of all creates with it, one makes a response."""

    key: str
    fingerprint: bytes
    """Of the request; the same key with another one is a mistake of the client's."""
    expires_at: int
    """Milliseconds since 1970 UTC; from then on the key may be used anew."""


def idempotency_scope(project: str) -> str:
    """Within which such a key is taken once."""
    return f"{project}:idempotency"


@dataclass(frozen=True, slots=True)
class Create:
    """Make the response.  Repeated with the same id it is a no-op."""

    id: str
    project: str
    key_id: str | None
    at: int
    request: ResponseRequest
    agent: Mapping[str, JSON]
    queued: bool = False
    dialect: Literal["openai", "open_responses"] = "openai"
    obfuscation: str | None = None
    opt_ins: tuple[str, ...] = ()
    code: str = ""
    idempotency: Idempotency | None = None
    """Claimed together with the creation; not recorded in the stream."""


@dataclass(frozen=True, slots=True)
class Activate:
    """An actor begins to run it."""

    host: str
    actor: str
    node: str
    pid: int


@dataclass(frozen=True, slots=True)
class BeginCall:
    """The upstream accepted a call of the agent loop."""

    resume: Resume
    upstream: str
    upstream_request_id: str | None
    request_digest: str
    unreported: int = 0
    """Deltas of the try before, if it was cut off: its upstream told no usage."""


@dataclass(frozen=True, slots=True)
class RecordOutput:
    """What a model said, in order.  Neighbouring deltas of one kind become one event.

    Holds no `CallStarted` (that is `BeginCall`); a `CallEnded` ends the call.
    """

    events: Sequence[ModelEvent] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class EndCallFailed:
    """The call broke off or was refused, and may be tried again."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class CloseItem:
    """End the open item as it stands, `incomplete`, because its interrupted call worded it anew."""


@dataclass(frozen=True, slots=True)
class StartTool:
    """Run the tool that a whole function call asks for, or run it again with the same key."""

    call_id: str


@dataclass(frozen=True, slots=True)
class FinishTool:
    """Tell the model what came of its call."""

    call_id: str
    output: str
    error: ToolFailure | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing more will come: complete, or incomplete where the last call ran out of tokens."""

    at: int
    reason: str | None = None
    """Why it ends early, where the last call does not say."""


@dataclass(frozen=True, slots=True)
class Fail:
    """There will be no answer."""

    at: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """End it now.  A no-op on a response that is over."""

    at: int
    by: str


@dataclass(frozen=True, slots=True)
class Erase:
    """Erase what is recorded.  Refused while it runs: cancel first."""

    at: int
    by: str
    reason: str


Command = (
    Create
    | Activate
    | BeginCall
    | RecordOutput
    | EndCallFailed
    | CloseItem
    | StartTool
    | FinishTool
    | Finish
    | Fail
    | Cancel
    | Erase
)
