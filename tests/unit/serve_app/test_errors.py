"""The table of errors: every exception that parts below may raise has an answer of its own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import orjson
import pytest

import actors.orders
import eventstore.errors
import runtime.response.errors
from actors.orders import Overloaded, RuntimeUnavailable, UnknownResponse
from eventstore.errors import LogCorrupted, OutcomeUnknown, StoreUnavailable, StreamNotFound, UnknownFormat
from runtime.catalog import UnknownModel
from runtime.response.errors import (
    InvalidInput,
    PreviousResponseInProgress,
    PreviousResponseNotFound,
    UnknownEvent,
)
from serve_app.errors import TABLE, ApiError, dotted, invalid, problem_of

CASES = [
    (InvalidInput("No tool output found for function call c.", "input"), 400, None),
    (PreviousResponseNotFound("resp_1"), 400, "previous_response_not_found"),
    (PreviousResponseInProgress("resp_1"), 400, "previous_response_in_progress"),
    (UnknownModel("m", "The model 'm' does not exist here."), 404, "model_not_found"),
    (UnknownResponse("resp_1"), 404, None),
    (StreamNotFound("resp_1"), 404, None),
    (LogCorrupted("resp_1", 3, "digest"), 500, "log_corrupted"),
    (Overloaded(1.2), 503, "server_is_overloaded"),
    (RuntimeUnavailable("no host"), 503, "runtime_unavailable"),
    (StoreUnavailable("locked"), 503, "store_unavailable"),
    (OutcomeUnknown("cut"), 503, "store_unavailable"),
    (UnknownEvent("resp_1", 3, "an event"), 503, "written_by_newer_version"),
    (UnknownFormat("resp_1"), 503, "written_by_newer_version"),
]
# These never leave the actors; if one did, it would be our mistake and a 500.
INSIDE = {
    "ClaimTaken",
    "Fenced",
    "IllegalCommand",
    "LeaseLost",
    "Moved",
    "UnsafeStore",
    "WrongExpectedVersion",
}


@pytest.mark.parametrize(("error", "status", "code"), CASES, ids=[type(case[0]).__name__ for case in CASES])
def test_each_error_has_its_status_and_code(error: Exception, status: int, code: str | None) -> None:
    problem = problem_of(error)
    assert problem is not None
    assert (problem.status, problem.code) == (status, code)
    body = orjson.loads(problem.body())
    assert set(body["error"]) == {"message", "type", "param", "code"}
    if status == 503:
        assert int(problem.headers["retry-after"]) >= 1


def _leaves() -> Iterator[type[Exception]]:
    for module in (actors.orders, eventstore.errors, runtime.response.errors):
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if (
                issubclass(kind, Exception)
                and kind.__module__ == module.__name__
                and not kind.__subclasses__()
            ):
                yield kind


@pytest.mark.parametrize("kind", list(_leaves()))
def test_no_error_of_the_parts_below_is_forgotten(kind: type[Exception]) -> None:
    assert any(base in TABLE for base in kind.__mro__) or kind.__name__ in INSIDE


def test_a_long_id_is_not_told_whole() -> None:
    problem = problem_of(PreviousResponseNotFound("x" * 100_000))
    assert problem is not None
    assert len(problem.body()) < 500


def test_what_nobody_expected_has_no_answer_of_its_own() -> None:
    assert problem_of(ZeroDivisionError()) is None


def test_a_422_names_the_first_field_and_counts_the_others() -> None:
    error = invalid([(("a", 2, "b"), "is wrong", "missing"), (("c",), "too", "missing")])
    assert isinstance(error, ApiError)
    assert error.problem.message == "a[2].b: is wrong (and 1 more)"
    assert dotted(("a", 2, "b")) == "a[2].b"
    assert orjson.loads(error.problem.body())["detail"][1] == {
        "loc": ["body", "c"],
        "msg": "too",
        "type": "missing",
    }
