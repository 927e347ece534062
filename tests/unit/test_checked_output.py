"""Structured output over an upstream that does not see to it: held back, checked, asked for once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from runtime.catalog import ChatOptions, Resolved, Upstream
from runtime.checked_output import form_to_check, misfit
from runtime.model import (
    CallEnded,
    FinishReason,
    ItemClosed,
    ItemOpened,
    ModelEvent,
    RefusalDelta,
    TextDelta,
    Usage,
)
from tests.unit.actors.kit import (
    ScriptedModel,
    Step,
    World,
    call_of,
    check_shown,
    create,
    in_turn,
    live_through,
    says,
    text_of,
    thought,
)

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "code": {"type": "string", "pattern": "^[A-Z]+$"}},
    "required": ["n"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "name": "numbers", "schema": SCHEMA, "strict": True, "description": None}
LACKING = Upstream("u", "openai_chat", "http://127.0.0.1:1/v1", chat=ChatOptions(structured_output=False))


async def ended(
    *answers: Sequence[Step], form: dict[str, Any] = FORM
) -> tuple[list[dict[str, Any]], ScriptedModel]:
    """What is shown of a response to these answers, and the model that gave them."""
    model = ScriptedModel(in_turn(*answers))
    agent = Resolved("m", replace(LACKING, max_retries=0), "m").public()
    command = replace(create(text={"format": form}, instructions="Count."), agent=agent)
    return await live_through(World(model), command, [None]), model


def test_only_what_nobody_else_sees_to_is_checked() -> None:
    sees = replace(LACKING, chat=ChatOptions())
    assert form_to_check({"format": FORM}, LACKING) == FORM
    assert form_to_check({"format": FORM}, sees) is None
    assert form_to_check({"format": {"type": "text"}}, LACKING) is None
    assert form_to_check({"format": FORM}, replace(LACKING, adapter="openai_responses")) is None


async def test_what_fits_is_shown_as_it_was_said() -> None:
    shown, model = await ended(says('{"n":', " 1}"))
    assert text_of(shown) == '{"n": 1}'
    assert check_shown(shown)["status"] == "completed"
    asked = model.requests[0]
    assert asked.text == {"format": {"type": "text"}}
    assert asked.instructions is not None
    assert asked.instructions.startswith("Count.")
    assert '"additionalProperties":false' in asked.instructions


async def test_a_code_fence_is_taken_off() -> None:
    shown, _ = await ended(says('```json\n{"n": 1}\n```\n'))
    assert text_of(shown) == '{"n": 1}'


async def test_what_does_not_fit_is_shown_to_nobody_and_asked_for_once_more() -> None:
    shown, model = await ended([thought("Hm."), *says('{"n": "one"}')], says('{"n": 1}'))
    final = check_shown(shown)
    assert text_of(shown) == '{"n": 1}'
    assert '"one"' not in str(shown)
    assert final["usage"]["input_tokens"] == 6, "both answers were paid for"
    *_, rejected, why = model.requests[1].items
    assert rejected["content"][0]["text"] == '{"n": "one"}'
    assert "$.n: 'one' is not of type 'integer'" in why["content"][0]["text"]


async def test_who_does_not_do_it_right_the_second_time_fails() -> None:
    shown, model = await ended(says("Sure!"), says("Here you are."))
    final = check_shown(shown)
    assert final["error"]["code"] == "invalid_output"
    assert "no JSON" in final["error"]["message"]
    assert final["output"] == []
    assert len(model.requests) == 2


@pytest.mark.parametrize("finish", ["length", "content_filter"])
async def test_an_answer_that_was_broken_off_is_shown_as_it_is(finish: FinishReason) -> None:
    shown, _ = await ended(says('{"n":', finish=finish))
    assert check_shown(shown)["status"] == "incomplete"
    assert text_of(shown) == '{"n":'


async def test_a_refusal_is_no_answer_to_check() -> None:
    said: list[ModelEvent] = [ItemOpened("message"), RefusalDelta("No."), ItemClosed()]
    shown, _ = await ended([[*said, CallEnded("stop", Usage(1, 1))]])
    assert check_shown(shown)["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]


async def test_words_before_a_call_are_not_the_answer() -> None:
    said = [ItemOpened("message"), TextDelta("Let me see."), ItemClosed(), *call_of("f", "{}")]
    shown, _ = await ended([[*said, CallEnded("tool_calls", Usage(1, 1))]])
    assert [item["type"] for item in check_shown(shown)["output"]] == ["message", "function_call"]


async def test_a_schema_that_is_none_is_the_clients_mistake() -> None:
    schemas: list[dict[str, Any]] = [{"type": "nonsense"}, {"patternProperties": {"(a+)+$": {}}}]
    for schema in schemas:
        shown, model = await ended(form={**FORM, "schema": schema})
        assert check_shown(shown)["error"]["code"] == "invalid_prompt"
        assert model.requests == []


@pytest.mark.parametrize(
    ("text", "form", "why"),
    [
        ('{"n": 1, "code": "AB"}', FORM, None),
        ('{"n": 1, "code": "ab"}', FORM, "$.code: 'ab' does not match '^[A-Z]+$'"),
        ('{"n": 1, "x": 1}', FORM, "$: Additional properties are not allowed ('x' was unexpected)"),
        ("[1]", {"type": "json_object"}, "it is no JSON object"),
        ('{"a": 1}', {"type": "json_object"}, None),
        ('"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"', {"schema": {"pattern": "^(a+)+$"}}, None),
    ],
)
def test_why_an_answer_does_not_fit(text: str, form: dict[str, Any], why: str | None) -> None:
    assert misfit(text, form) == why


def test_nothing_is_fetched_for_a_schema() -> None:
    why = misfit("1", {"schema": {"$ref": "http://127.0.0.1:1/schema.json"}})
    assert why is not None
    assert "refers to what is not in it" in why
