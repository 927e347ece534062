"""What of a context that is too long is left out, and what never is."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.model import ModelError
from runtime.models.upstream_errors import refused
from runtime.truncation import shortened
from tests.unit.actors.kit import Script, ScriptedModel, World, check_shown, create, live_through, says


def said(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}


def call(id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"}


def output(id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": "x"}


TOO_LONG = ModelError("context_length_exceeded", "Too long.")
SYSTEM, QUESTION = said("system", "Be brief."), said("user", "And?")
OLD = [
    said("user", "1"),
    call("a"),
    said("assistant", "2"),
    output("a"),
    said("user", "3"),
    said("assistant", "4"),
]


def test_the_older_half_goes_calls_with_their_outputs() -> None:
    assert shortened([SYSTEM, *OLD, QUESTION]) == [SYSTEM, *OLD[4:], QUESTION]


def test_in_the_end_only_what_must_stay_is_left() -> None:
    context: Any = [SYSTEM, *OLD, QUESTION, call("b"), output("b")]
    lengths = []
    while (shorter := shortened(context)) is not None:
        assert len(shorter) < len(context)
        context = shorter
        lengths.append(len(context))
    assert context == [SYSTEM, QUESTION, call("b"), output("b")]
    assert lengths == sorted(lengths, reverse=True)


def fits(most: int) -> Script:
    """A model that takes so many items."""
    return lambda request, _: says("Yes.") if len(request.items) <= most else [TOO_LONG]


async def test_a_response_is_answered_with_what_fits() -> None:
    model = ScriptedModel(fits(3))
    command = create(truncation="auto", input=(SYSTEM, *OLD, QUESTION))
    final = check_shown(await live_through(World(model), command, [None]))
    assert final["status"] == "completed"
    assert [len(request.items) for request in model.requests] == [8, 4, 3]
    assert [model.requests[-1].items[0], model.requests[-1].items[-1]] == [SYSTEM, QUESTION]


@pytest.mark.parametrize(("truncation", "tries"), [("disabled", 1), ("auto", 4)])
async def test_what_may_not_be_left_out_is_not(truncation: str, tries: int) -> None:
    model = ScriptedModel(fits(0))
    command = create(truncation=truncation, input=(SYSTEM, *OLD, QUESTION))
    final = check_shown(await live_through(World(model), command, [None]))
    assert final["error"]["code"] == "context_length_exceeded"
    assert len(model.requests) == tries


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": {"code": "context_length_exceeded", "message": "x"}}', "context_length_exceeded"),
        (
            b'{"message": "This model\'s maximum context length is 4096 tokens."}',
            "context_length_exceeded",
        ),
        (
            b'{"error": {"type": "exceed_context_size_error", '
            b'"message": "the request exceeds the available context size"}}',
            "context_length_exceeded",
        ),
        (b'{"error": {"message": "temperature is too high"}}', "invalid_prompt"),
    ],
)
def test_how_upstreams_say_that_it_is_too_long(body: bytes, code: str) -> None:
    assert refused("u", 400, {}, body, ()).code == code
