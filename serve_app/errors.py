"""What a client is told when something is wrong: one table from exceptions to HTTP answers.

The body is always `{"error": {"message", "type", "param", "code"}}`; a 422 also carries `detail` in FastAPI's
shape.  No answer echoes what a field held, shows a stack trace or tells a foreign id from an unknown one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from actors.orders import Overloaded, RuntimeUnavailable, UnknownResponse
from eventstore.errors import LogCorrupted, StoreUnavailable, StreamNotFound, UnknownFormat
from runtime.catalog import UnknownModel
from runtime.conversation.errors import ConversationFull, ConversationLocked, UnknownConversation
from runtime.project.errors import DefaultProject, TooManyKeys, UnknownKey, UnknownProject
from runtime.response.errors import (
    InvalidInput,
    PreviousResponseInProgress,
    PreviousResponseNotFound,
    UnknownEvent,
)

INVALID: Final = "invalid_request_error"
SERVER: Final = "server_error"
UNAVAILABLE: Final = "service_unavailable_error"


@dataclass(frozen=True, slots=True)
class Problem:
    """One error answer."""

    status: int
    message: str
    type: str = INVALID
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    detail: Sequence[Mapping[str, Any]] | None = None
    """Of a 422: FastAPI's list of `loc`, `msg`, `type`."""
    response_id: str | None = None
    """The response that the error is about, where a client needs it to go on."""

    def body(self) -> bytes:
        """The answer's JSON."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        if self.response_id is not None:
            error["response_id"] = self.response_id
        told: dict[str, Any] = {"error": error}
        if self.detail is not None:
            told["detail"] = self.detail
        return orjson.dumps(told)


class ApiError(Exception):
    """The request cannot be served; `problem` is the answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem.message


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request is understood but makes no sense, or asks for what is not served."""
    return ApiError(Problem(400, message, code=code, param=param))


def not_supported(what: str, param: str, remedy: str) -> ApiError:
    """400: a part of the Responses API that is not served yet."""
    return bad_request(f"{what} is not supported yet. {remedy}", param, "unsupported_parameter")


def no_response(response_id: str, param: str = "id") -> ApiError:
    """404: no such response, or none that this caller may see; one wording for both."""
    return _not_found("Response", response_id, param)


def no_project(project: str) -> ApiError:
    """404, for operators: no such project, or none any more."""
    return _not_found("Project", project, "project_id", "project_not_found")


def no_key(key_id: str) -> ApiError:
    """404, for operators: the project has no such key."""
    return _not_found("API key", key_id, "key_id", "key_not_found")


def no_conversation(conversation: str, param: str = "id") -> ApiError:
    """404: no such conversation, or none that this caller may see; one wording for both."""
    return _not_found("Conversation", conversation, param)


def no_item(item_id: str, param: str = "item_id") -> ApiError:
    """404: no such item."""
    return _not_found("Item", item_id, param)


def maybe_added() -> ApiError:
    """503: items that are sent again without a key get new ids, so no client should do it unasked."""
    message = (
        "Nobody knows now whether they were added. List the items before you send these again, or send items "
        "with an Idempotency-Key."
    )
    headers = {"retry-after": "1", "x-should-retry": "false"}
    return ApiError(Problem(503, message, UNAVAILABLE, "store_unavailable", headers=headers))


def _not_found(what: str, given: str, param: str, code: str | None = None) -> ApiError:
    shown = given if len(given) <= 100 else given[:100] + "..."
    return ApiError(Problem(404, f"{what} with id '{shown}' not found.", param=param, code=code))


def too_large(message: str, param: str | None = None) -> ApiError:
    """413."""
    return ApiError(Problem(413, message, code="request_too_large", param=param))


CODES: Final = {
    "missing": "missing_required_parameter",
    "less_than_equal": "integer_above_max_value",
    "greater_than_equal": "integer_below_min_value",
    "string_too_long": "string_above_max_length",
    "string_too_short": "string_below_min_length",
    "string_pattern_mismatch": "invalid_value",
    "literal_error": "invalid_value",
    "union_tag_invalid": "invalid_value",
    "value_error": "invalid_value",
    "too_large": "object_above_max_size",
    "too_long": "array_above_max_length",
}
"""FastAPI's words for what is wrong with a value, in OpenAI's; every other one is `invalid_type`."""
DECIMAL_CODES: Final = {
    "less_than_equal": "decimal_above_max_value",
    "greater_than_equal": "decimal_below_min_value",
}
"""The same where the bound is that of a decimal."""


def invalid(detail: Sequence[tuple[Sequence[str | int], str, str]], code: str | None = None) -> ApiError:
    """422: values of the wrong type or out of bounds, each as (path in the body, message, FastAPI's type).

    `code` is OpenAI's word for the first one, where its type does not tell.
    """
    path, message, kind = detail[0]
    param = dotted(path)
    more = f" (and {len(detail) - 1} more)" if len(detail) > 1 else ""
    return ApiError(
        Problem(
            422,
            f"{param}: {message}{more}" if param else message,
            code=code or CODES.get(kind, "invalid_type"),
            param=param or None,
            detail=[{"loc": ["body", *loc], "msg": msg, "type": type_} for loc, msg, type_ in detail],
        )
    )


def dotted(path: Sequence[str | int]) -> str:
    """`input[2].content` for ("input", 2, "content")."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def problem_of(error: BaseException) -> Problem | None:
    """The answer for an exception, or None for one that nobody expected."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind](error)
    return None


UNEXPECTED: Final = Problem(
    500,
    "The server had an error while processing your request. The request id is in the x-request-id header; "
    "the server's log tells more.",
    SERVER,
    "internal_error",
)


def _overloaded(error: Overloaded) -> Problem:
    wait = {"retry-after": str(max(1, math.ceil(error.retry_after)))}
    return Problem(
        503,
        "Every slot is taken and the queue is full. Try again later, or send it with background: true.",
        UNAVAILABLE,
        "server_is_overloaded",
        headers=wait,
    )


def _unavailable(error: RuntimeUnavailable) -> Problem:
    wait = {"retry-after": str(max(1, math.ceil(error.retry_after)))}
    message = "The runtime starts, stops or recovers. Try again in a moment."
    return Problem(503, message, UNAVAILABLE, "runtime_unavailable", headers=wait)


def _store(_: StoreUnavailable) -> Problem:
    message = "The log cannot be reached now. Try again in a moment."
    return Problem(503, message, UNAVAILABLE, "store_unavailable", headers={"retry-after": "1"})


def _parent(code: str) -> Callable[[Exception], Problem]:
    return lambda error: Problem(400, str(error), code=code, param="previous_response_id")


def _conversation(code: str) -> Callable[[Exception], Problem]:
    return lambda error: Problem(400, str(error), code=code, param="conversation")


def _newer(_: UnknownEvent | UnknownFormat) -> Problem:
    message = "A newer version of the server wrote this response; this one cannot read it."
    return Problem(503, message, UNAVAILABLE, "written_by_newer_version", headers={"retry-after": "5"})


def _corrupted(_: LogCorrupted) -> Problem:
    message = "The log of this response does not verify, so it is not shown. The operator must look at it."
    return Problem(500, message, SERVER, "log_corrupted", headers={"x-should-retry": "false"})


TABLE: Final[dict[type[BaseException], Callable[[Any], Problem]]] = {
    ApiError: lambda error: error.problem,
    UnknownModel: lambda error: Problem(404, error.message, code="model_not_found", param="model"),
    InvalidInput: lambda error: Problem(400, error.message, param=error.param),
    PreviousResponseNotFound: _parent("previous_response_not_found"),
    PreviousResponseInProgress: _parent("previous_response_in_progress"),
    UnknownConversation: lambda error: no_conversation(error.conversation, "conversation").problem,
    ConversationLocked: _conversation("conversation_locked"),
    ConversationFull: _conversation("conversation_full"),
    UnknownProject: lambda error: no_project(error.project).problem,
    UnknownKey: lambda error: no_key(error.key_id).problem,
    TooManyKeys: lambda error: Problem(400, f"Refused: {error}.", code="too_many_keys"),
    DefaultProject: lambda error: Problem(400, f"Refused: {error}.", code="default_project"),
    UnknownEvent: _newer,
    UnknownFormat: _newer,
    UnknownResponse: lambda error: no_response(error.response_id).problem,
    StreamNotFound: lambda error: no_response(error.stream).problem,
    Overloaded: _overloaded,
    RuntimeUnavailable: _unavailable,
    StoreUnavailable: _store,
    LogCorrupted: _corrupted,
}
"""Exception to answer; the nearest base class counts."""
