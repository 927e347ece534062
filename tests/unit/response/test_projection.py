"""What clients see: the order, the numbers and the shapes of wire events."""

from __future__ import annotations

import hashlib

import orjson
import pytest
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseCompletedEvent, ResponseFailedEvent, ResponseIncompleteEvent

from runtime.model import ArgumentsDelta, CallEnded, ItemClosed, ItemOpened, TextDelta
from runtime.response import events as e
from runtime.response.commands import Command, Fail
from runtime.response.errors import UnknownEvent
from runtime.response.projection import project
from runtime.response.request import ResponseRequest
from runtime.response.snapshot import response_object, snapshot_bytes
from runtime.response.state import INITIAL, ResponseState, fold
from runtime.response.wire import DONE_FRAME, WireEvent, dumps
from tests.conformance import check_event, check_response
from tests.golden.scenarios import SCENARIOS, say
from tests.running import ACTIVATE, CANCEL, FINISH, USAGE, Running, begin, create

LIFECYCLE = {"response.created", "response.queued", "response.in_progress"}


def run(*commands: Command) -> Running:
    running = Running()
    running.obey(*commands)
    return running


def types(running: Running) -> list[str]:
    return [event.type.removeprefix("response.") for event in running.wire]


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_conforms(name: str) -> None:
    """Each event is valid for OpenAI's SDK and Open Responses, but for the exceptions in conformance.py."""
    running = run(*SCENARIOS[name])
    for event in running.wire:
        check_event(event.data)
    check_response(snapshot_bytes(running.wire[-1]))


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "raw_reasoning_open_responses"])
def test_the_sdks_stream_helper_accumulates_the_same_response(name: str) -> None:
    """`client.responses.stream()` raises on a wrong order and builds the output from the deltas."""
    helper = ResponseStreamState(input_tools=omit, text_format=omit)
    running = run(*SCENARIOS[name])
    for event in running.wire:
        seen = helper.handle_event(check_event(event.data))  # type: ignore[arg-type]  # One of its union.
    final = seen[-1]
    assert isinstance(final, (ResponseCompletedEvent, ResponseIncompleteEvent, ResponseFailedEvent))
    shown = response_object(_before_erasure(running))["output"]
    assert [item.id for item in final.response.output] == [item["id"] for item in shown]
    if final.response.status == "completed":
        messages = [item for item in shown if item["type"] == "message"]
        said = "".join(part.get("text", "") for item in messages for part in item["content"])
        assert final.response.output_text == said


def _before_erasure(running: Running) -> ResponseState:
    return fold(event for event in running.events if not isinstance(event, e.Erased))


def test_the_order_of_a_plain_answer() -> None:
    assert types(run(*SCENARIOS["answer"])) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 4,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


def test_a_queued_response_says_so_until_it_is_activated() -> None:
    running = run(create(queued=True))
    assert types(running) == ["created", "queued"]
    assert response_object(running.state)["status"] == "queued"
    running.obey(ACTIVATE, ACTIVATE)
    assert types(running) == ["created", "queued", "in_progress"]
    assert response_object(running.state)["status"] == "in_progress"


def test_a_message_that_says_nothing_has_one_empty_part() -> None:
    running = run(create(), ACTIVATE, begin(), say(ItemOpened("message"), ItemClosed()))
    assert types(running)[2:] == [
        "output_item.added",
        "content_part.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert running.state.output[0]["content"] == [{"type": "output_text", "text": "", "annotations": []}]


def test_a_half_function_call_never_reads_as_a_whole_one() -> None:
    """Its arguments are not declared done, and its item is incomplete (invariant 7)."""
    half = say(ItemOpened("function_call", "f", "call_1"), ArgumentsDelta('{"a'))
    running = run(create(), ACTIVATE, begin(), half, CANCEL)
    assert "function_call_arguments.done" not in types(running)
    assert types(running)[-2:] == ["output_item.done", "incomplete"]
    assert running.state.output[0]["status"] == "incomplete"


def test_a_cancelled_response_ends_incomplete_with_status_cancelled() -> None:
    running = run(*SCENARIOS["cancelled_in_a_call"])
    snapshot = orjson.loads(snapshot_bytes(running.wire[-1]))
    assert running.wire[-1].type == "response.incomplete"
    assert (snapshot["status"], snapshot["incomplete_details"]) == ("cancelled", None)


def test_a_failure_is_told_in_both_known_forms_and_then_ends() -> None:
    running = run(create(), ACTIVATE, Fail(1, "rate_limit_exceeded", "Slow down."))
    assert types(running)[-2:] == ["error", "failed"]
    error = orjson.loads(running.wire[-2].data)
    flat = {"code": "rate_limit_exceeded", "message": "Slow down.", "param": None}
    assert {key: error[key] for key in flat} == flat
    assert error["error"] == {"type": "rate_limit_error", **flat}
    end = orjson.loads(running.wire[-1].data)["response"]
    assert end["error"] == {"code": "rate_limit_exceeded", "message": "Slow down."}


def test_bookkeeping_shows_nothing() -> None:
    running = run(create(), ACTIVATE)
    before = len(running.wire)
    running.obey(begin(), ACTIVATE, begin("again"), say(CallEnded("stop", USAGE)))
    assert len(running.wire) == before


@pytest.mark.parametrize("obfuscation", [None, "seed"])
def test_a_delta_has_the_bytes_that_the_serializer_would_make(obfuscation: str | None) -> None:
    """Deltas are formatted from a prefix, for speed; nobody may see a difference."""
    texts = ["plain", '"quoted"\\', "\n\t\x00\x1f\x7f", "é\u2028\U0001f44b", "</script>", "x" * 16]
    running = run(create(obfuscation=obfuscation), ACTIVATE, begin())
    running.obey(say(ItemOpened("message"), *map(TextDelta, texts)))
    deltas = [event for event in running.wire if event.type.endswith(".delta")]
    assert [orjson.loads(event.data)["delta"] for event in deltas] == texts
    for event in deltas:
        assert event.data == dumps(orjson.loads(event.data))
        assert event.number == orjson.loads(event.data)["sequence_number"]


def test_obfuscated_deltas_do_not_betray_their_length() -> None:
    """Padded to multiples of 16 characters; the same padding in every replay."""
    running = run(create(obfuscation="seed"), ACTIVATE, begin())
    running.obey(say(ItemOpened("message"), *(TextDelta("x" * size) for size in range(1, 40))))
    for event in (orjson.loads(event.data) for event in running.wire if event.type.endswith(".delta")):
        assert (len(event["delta"]) + len(event["obfuscation"])) % 16 == 0
    assert [event.data for event in run(*SCENARIOS["queued_with_every_field"]).wire] == [
        event.data for event in run(*SCENARIOS["queued_with_every_field"]).wire
    ]


def test_the_digest_is_that_of_the_data_lines() -> None:
    """So that whoever kept a stream can check it with standard tools."""
    running = run(*SCENARIOS["answer"])
    lines = [line for line in running.sse.split(b"\n") if line.startswith(b"data: ")]
    kept = b"".join(line.removeprefix(b"data: ") + b"\n" for line in lines)
    ending = running.state.ending
    assert ending is not None
    assert hashlib.sha256(kept).hexdigest() == ending.shown == running.state.shown.digest


def test_a_finished_answers_body_is_the_snapshot_of_the_last_event() -> None:
    running = run(*SCENARIOS["answer"])
    assert snapshot_bytes(running.wire[-1]) == dumps(response_object(running.state))


def test_a_running_response_shows_the_item_that_is_being_said() -> None:
    running = run(create(), ACTIVATE, begin(), say(ItemOpened("message"), TextDelta("Hal")))
    shown = response_object(running.state)["output"]
    assert [(item["status"], item["content"][0]["text"]) for item in shown] == [("in_progress", "Hal")]


def test_encrypted_reasoning_is_shown_on_request_only_but_kept_for_its_upstream() -> None:
    sealed = say(ItemOpened("reasoning", upstream_id="rs_up"), ItemClosed("gAAA"))
    for include in ((), ("reasoning.encrypted_content",)):
        running = run(create(ResponseRequest(model="m", include=include)), ACTIVATE, begin(), sealed)
        item = running.state.output[0]
        assert item.get("encrypted_content") == ("gAAA" if include else None)
        upstream = {"name": "simulated", "id": "rs_up", "encrypted_content": "gAAA"}
        assert running.state.context_items == ({**item, "_upstream": upstream},)
        assert b"rs_up" not in running.sse


def test_usage_adds_up_over_all_turns() -> None:
    running = run(create(), ACTIVATE, begin(), say(CallEnded("tool_calls", USAGE)))
    running.obey(begin(), say(CallEnded("stop", USAGE)), FINISH)
    assert response_object(running.state)["usage"] == {
        "input_tokens": 22,
        "input_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 0},
        "output_tokens": 14,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 36,
    }


def test_what_the_current_call_said_over_all_its_attempts_is_known() -> None:
    """Recovery compares or continues it."""
    running = run(create(), ACTIVATE, begin(), say(ItemOpened("message"), ItemClosed()))
    running.obey(say(CallEnded("stop", USAGE)), begin(), say(ItemOpened("reasoning"), ItemClosed()))
    running.obey(begin("repeat"), say(ItemOpened("message"), TextDelta("He"), TextDelta("llo")))
    assert [item["type"] for item in running.state.call_items] == ["reasoning"]
    assert running.state.open_item is not None
    assert running.state.open_item.text == "Hello"
    assert running.state.attempt == 1


def test_a_projection_of_a_newer_version_is_refused() -> None:
    """Showing it in another way would break the same-bytes promise."""
    running = run(create())
    created = running.events[0]
    assert isinstance(created, e.ResponseCreated)
    newer = e.ResponseCreated("resp_x", "p", None, 0, created.request, {}, False, projection=2)
    with pytest.raises(UnknownEvent, match="projection 2"):
        project(INITIAL, newer)


def test_frames_are_whole_and_end_in_lf() -> None:
    assert WireEvent(7, "x.y", b'{"a":1}').frame == b'event: x.y\ndata: {"a":1}\n\n'
    assert DONE_FRAME == b"data: [DONE]\n\n"


@pytest.mark.parametrize("value", ["\ud800", 2**64], ids=["lone surrogate", "beyond 64 bits"])
def test_what_is_not_json_is_never_written(value: object) -> None:
    """It must not be replaced silently: what is read back would differ."""
    with pytest.raises(TypeError):
        dumps({"text": value})


def test_erasing_leaves_nothing_in_the_state() -> None:
    running = run(create(), CANCEL)
    erased = e.Erased(1, "key_1", "asked to")
    assert fold([erased], running.state) == fold([erased])
    assert project(running.state, erased) == []
