"""The model port: what an agent asks of a model, and what a model says back.

An adapter (`runtime.models`) turns a `ModelRequest` into one upstream call and yields what arrives, in
order, as `ModelEvent`s.  It decides nothing: retries, resumption and limits live in the agent loop.

Three rules bind every adapter:

* At most one item is open at a time.  Upstreams that interleave items are put in order by the adapter.
* It yields what one network read brought as one batch, and reads no further until the consumer asks: a
  slow log slows the upstream down, nothing piles up.
* It never hangs and never raises anything but `ModelError` (and cancellation).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

JSON = Any
"""A JSON value: what `json.loads` returns."""

ItemKind = Literal[
    "message",
    "function_call",
    "reasoning",
    "custom_tool_call",
    "shell_call",
    "local_shell_call",
    "apply_patch_call",
    "compaction",
]
"""The item types that a model says.  Upstreams say the first three; the others are made of those here."""
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One model call.  All JSON is in the Responses API's shapes; adapters translate."""

    model: str
    """The upstream's own name of the model."""
    instructions: str | None
    """System text for this call only."""
    items: Sequence[Mapping[str, JSON]]
    """The whole context, oldest first: input items and earlier output items, in Responses form.

    An item may carry `_upstream`: `{"name", "id"?, "encrypted_content"?}`, what the upstream of that name
    gave with it.  Adapters send it back to the upstream of that name only, and strip it for every other.
    """
    tools: Sequence[Mapping[str, JSON]] = ()
    tool_choice: JSON = "auto"
    parallel_tool_calls: bool = True
    text: Mapping[str, JSON] = field(default_factory=lambda: {"format": {"type": "text"}})
    """`{"format": ..., "verbosity"?: ...}`."""
    reasoning: Mapping[str, JSON] | None = None
    """`{"effort", "summary"}`, or nothing where the request named neither."""
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int | None = None
    """How many likely tokens are told at each place; 0 for the chosen one's alone, None for no telling."""
    max_output_tokens: int | None = None
    user: str | None = None
    goes_on: bool = False
    """Whether the last item is half a message of the model's own, which it is to continue as it stands."""
    seed: str = ""
    """Deterministic salt of this call (response id and attempt); `simulated` needs no other randomness."""


@dataclass(frozen=True, slots=True)
class CallStarted:
    """The upstream accepted the call.  Always the first event."""

    upstream_request_id: str | None
    request_digest: str
    """Hex SHA-256 of the exact bytes sent upstream."""


@dataclass(frozen=True, slots=True)
class ItemOpened:
    """A new output item begins."""

    kind: ItemKind
    name: str = ""
    """Of a function call."""
    call_id: str = ""
    """Of a function call: the upstream's, where it gave a usable one."""
    upstream_id: str | None = None
    """The upstream's own id of the item; kept beside ours and sent back only to the same upstream."""
    namespace: str | None = None
    """Of a call of a tool that stands in a namespace."""
    action: Mapping[str, JSON] | None = None
    """Of a shell or patch call: what is to be done, whole."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of an open message's text."""

    text: str
    logprobs: tuple[Mapping[str, JSON], ...] = ()
    """Of its tokens, where they were asked for: `{"token", "logprob", "bytes", "top_logprobs": [...]}`."""


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """More of an open message's refusal."""

    text: str


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """More of an open function call's arguments (JSON text), or of a custom tool call's input."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of an open reasoning item's raw text."""

    text: str


@dataclass(frozen=True, slots=True)
class SummaryDelta:
    """More of an open reasoning item's summary; `index` counts its parts from 0 and never falls."""

    text: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class ItemClosed:
    """The open item is whole."""

    encrypted_content: str | None = None
    """Of a reasoning item, where the upstream gave it."""
    sealed: str | None = None
    """What the client is shown as the item's encrypted content, where that is ours."""
    summary: str | None = None
    """Of a compaction: what is sealed in it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or more calls."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """The tokens of both."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The upstream finished by itself.  Always the last event; a stream without it was interrupted.

    An item that is still open here (`length`, `content_filter`) is incomplete: the upstream broke it off.
    """

    finish: FinishReason
    usage: Usage


ModelEvent = (
    CallStarted
    | ItemOpened
    | TextDelta
    | RefusalDelta
    | ArgumentsDelta
    | ReasoningDelta
    | SummaryDelta
    | ItemClosed
    | CallEnded
)


class ModelError(Exception):
    """The upstream refused, broke off, stalled or spoke nonsense.

    `code` is a value of the Responses API's `error.code` (`server_error`, `rate_limit_exceeded`,
    `invalid_prompt`, ...) or one of ours (`upstream_auth`, `upstream_not_found`, `upstream_timeout`,
    `upstream_unreachable`, `upstream_interrupted`, `upstream_protocol`).  `message` is for the client: it
    names the upstream and the remedy, and never holds a key, a stack trace or an upstream's raw body beyond
    its own error message.
    """

    def __init__(
        self, code: str, message: str, *, retryable: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.retryable = retryable
        """Whether the same call may succeed later: 408, 409, 429, 5xx, no connection, a cut stream."""
        self.retry_after = retry_after
        """Seconds the upstream asked to wait, where it did."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with its fields: it crosses processes."""
        return (_model_error, (self.code, self.message, self.retryable, self.retry_after))

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def _model_error(code: str, message: str, retryable: bool, retry_after: float | None) -> ModelError:
    return ModelError(code, message, retryable=retryable, retry_after=retry_after)


class Model(Protocol):
    """One upstream, reached in one way."""

    def call(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Sequence[ModelEvent]]]:
        """Make one call.  Leaving the context closes the upstream connection, whatever was read of it.

        Raises `ModelError` on entering or while iterating.
        """
        ...

    async def models(self) -> Sequence[str]:
        """The names the upstream lists.  Raises `ModelError`."""
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...
