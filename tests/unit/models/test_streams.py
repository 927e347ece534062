"""What the readers of both streams make of servers that follow the letter less closely."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.model import CallEnded, ItemClosed, ItemOpened, ReasoningDelta, SummaryDelta, Usage
from runtime.models.chat_stream import ChatReader
from runtime.models.reader import NONSENSE, ErrorObject, Reader
from runtime.models.responses_stream import ResponsesReader
from runtime.models.sse import EventParser
from tests.unit.models.calls import Said


def _read(reader: Reader, *chunks: Any) -> Said:
    for chunk in chunks:
        reader.feed(chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode())
    reader.at_end()
    return Said([reader.take()])


def _chat(*deltas: dict[str, Any], finish: str | None = "stop") -> Said:
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    end = [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}] if finish else []
    return _read(ChatReader(), *chunks, *end, b"[DONE]")


def _piece(arguments: str, **call: Any) -> dict[str, Any]:
    name = call.pop("name", None)
    return {
        "tool_calls": [{**call, "function": {"arguments": arguments, **({"name": name} if name else {})}}]
    }


def _ids(said: Said) -> list[str]:
    return [event.call_id for event in said.events if isinstance(event, ItemOpened)]


def test_calls_without_a_number_are_told_apart_by_id_or_name() -> None:
    said = _chat(_piece('{"a":1}', id="x", name="f"), _piece('{"b":2}', id="y", name="g"))
    assert said.items == [("f", '{"a":1}'), ("g", '{"b":2}')]
    assert _ids(said) == ["x", "y"]
    assert _chat(_piece("{}", name="f"), _piece("{}", name="f")).items == [("f", "{}"), ("f", "{}")]


def test_calls_that_all_have_the_number_0_are_told_apart_by_id() -> None:
    said = _chat(
        _piece('{"a"', index=0, id="x", name="f"),
        _piece(":1}", index=0),
        _piece("{}", index=0, id="y", name="g"),
        _piece(" ", index=0),
    )
    assert said.items == [("f", '{"a":1}'), ("g", "{} ")]


def test_a_name_that_is_repeated_begins_nothing() -> None:
    said = _chat(_piece('{"a"', index=0, id="x", name="f"), _piece(":1}", index=0, id="x", name="f"))
    assert said.items == [("f", '{"a":1}')]


def test_a_call_id_that_is_missing_too_long_or_given_twice_is_not_passed_on() -> None:
    said = _chat(
        _piece("{}", index=0, id="x" * 65, name="f"),
        _piece("{}", index=1, name="f"),
        _piece("{}", index=2, id="same", name="f"),
        _piece("{}", index=3, id="same", name="f"),
    )
    assert _ids(said) == ["", "", "same", ""]


def test_a_call_without_arguments_has_empty_ones() -> None:
    assert _chat(_piece("", index=0, id="x", name="f")).items == [("f", "{}")]
    whole = {"tool_calls": [{"index": 0, "id": "x", "function": {"name": "f", "arguments": {"a": 1}}}]}
    assert _chat(whole).items == [("f", '{"a":1}')]


def test_calls_stream_one_after_the_other_without_waiting_for_the_end() -> None:
    reader = ChatReader()
    for delta in (_piece("{}", index=0, id="x", name="f"), _piece('{"a"', index=1, id="y", name="g")):
        reader.feed(json.dumps({"choices": [{"delta": delta}]}).encode())
    kinds = [type(event).__name__ for event in reader.take()]
    assert kinds == ["ItemOpened", "ArgumentsDelta", "ItemClosed", "ItemOpened", "ArgumentsDelta"]


def test_a_half_call_is_left_open_when_the_tokens_run_out() -> None:
    said = _chat(_piece('{"a"', index=0, id="x", name="f"), finish="length")
    assert said.items == [("f", '{"a"...')]


def test_text_reasoning_and_calls_may_alternate() -> None:
    said = _chat(
        {"reasoning_content": "hm"},
        {"content": "I look."},
        _piece("{}", index=0, id="x", name="f"),
        {"content": "Done."},
        {"reasoning": "so"},
    )
    assert said.items == [
        ("reasoning", "hm"),
        ("message", "I look."),
        ("f", "{}"),
        ("message", "Done."),
        ("reasoning", "so"),
    ]


def test_content_in_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    said = _chat({"content": [thinking, {"type": "text", "text": "yes"}]})
    assert said.items == [("reasoning", "hm"), ("message", "yes")]


def test_a_finish_is_what_counts_and_done_stands_for_it() -> None:
    assert _chat({"content": "x"}, finish=None).end.finish == "stop"
    assert _chat({"content": "x"}, finish="eos").end.finish == "stop"
    assert _chat(_piece("{}", index=0, id="x", name="f"), finish="stop").end.finish == "tool_calls"
    cut = _read(ChatReader(), {"choices": [{"delta": {"content": "x"}}]})
    assert not any(isinstance(event, CallEnded) for event in cut.events)


def test_other_choices_and_late_words_are_ignored() -> None:
    chunks = [
        {"choices": [{"index": 1, "delta": {"content": "other"}}]},
        {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "delta": {"content": "late"}}]},
    ]
    assert _read(ChatReader(), *chunks).items == [("message", "x")]


def test_usage_may_come_from_anywhere_and_may_be_nonsense() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": None, "prompt_cache_hit_tokens": 4}
    chunk = {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    assert _read(ChatReader(), chunk, {"choices": [], "usage": None}).end.usage == Usage(5, 0, 4, 0)


@pytest.mark.parametrize(
    "chunk",
    [
        [],
        "x",
        {"choices": 1},
        {"choices": [{"delta": {"content": 1, "tool_calls": 7}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": "f"}]}}]},
        {"choices": [{"delta": _piece("{}", index=0), "finish_reason": "tool_calls"}]},
        b"{",
        b"NaN",
    ],
    ids=str,
)
def test_nonsense_is_told_apart(chunk: Any) -> None:
    with pytest.raises(NONSENSE):
        _read(ChatReader(), chunk, b"[DONE]")


def _event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **fields}


def _item(index: int, item: dict[str, Any], kind: str = "added") -> dict[str, Any]:
    return _event(f"output_item.{kind}", output_index=index, item=item)


def _completed(**fields: Any) -> dict[str, Any]:
    return _event("completed", response={"status": "completed", **fields})


MESSAGE = {"type": "message", "id": "msg_up", "role": "assistant", "content": []}


def test_ids_and_encrypted_reasoning_are_kept() -> None:
    reasoning = {"type": "reasoning", "id": "rs_up", "summary": []}
    said = _read(
        ResponsesReader(),
        _item(0, reasoning),
        _event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="a"),
        _event("reasoning_summary_text.delta", output_index=0, summary_index=1, delta="b"),
        _item(0, {**reasoning, "encrypted_content": "sealed"}, "done"),
        _item(1, MESSAGE),
        _item(1, {**MESSAGE, "content": [{"type": "output_text", "text": "told at the end"}]}, "done"),
        _completed(),
    )
    assert said.items == [("reasoning", "in short: ab"), ("message", "told at the end")]
    assert [event.upstream_id for event in said.events if isinstance(event, ItemOpened)] == [
        "rs_up",
        "msg_up",
    ]
    assert [event.index for event in said.events if isinstance(event, SummaryDelta)] == [0, 1]
    assert ItemClosed("sealed") in said.events


def test_mixed_items_are_put_in_order() -> None:
    delta = "function_call_arguments.delta"
    calls = [
        {"type": "function_call", "id": f"fc_{n}", "call_id": f"c{n}", "name": f"f{n}"} for n in range(3)
    ]
    said = _read(
        ResponsesReader(),
        *(_item(n, call) for n, call in enumerate(calls)),
        *(_event(delta, output_index=n, delta=f'{{"n":{n}') for n in (2, 0, 1)),
        *(_event(delta, output_index=n, delta="}") for n in (1, 2, 0)),
        *(_item(n, calls[n], "done") for n in (2, 1, 0)),
        _completed(),
    )
    assert said.items == [("f0", '{"n":0}'), ("f1", '{"n":1}'), ("f2", '{"n":2}')]
    assert said.end.finish == "tool_calls"


def test_an_answer_that_is_only_in_its_last_event_is_heard() -> None:
    output = [
        {
            "type": "reasoning",
            "id": "r",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}],
        },
        {"type": "web_search_call", "id": "w", "status": "completed"},
        {**MESSAGE, "content": [{"type": "refusal", "refusal": "no"}]},
    ]
    said = _read(ResponsesReader(), _completed(output=output))
    assert said.items == [("reasoning", "hm"), ("message", "refuses: no")]
    assert any(isinstance(event, ReasoningDelta) for event in said.events)


@pytest.mark.parametrize(("reason", "finish"), [("max_output_tokens", "length"), ("content_filter",) * 2])
def test_an_incomplete_response_leaves_its_item_open(reason: str, finish: str) -> None:
    said = _read(
        ResponsesReader(),
        _event("output_text.delta", output_index=0, delta="half"),
        _item(0, {**MESSAGE, "status": "incomplete"}, "done"),
        _event("incomplete", response={"status": "incomplete", "incomplete_details": {"reason": reason}}),
    )
    assert said.items == [("message", "half...")]
    assert said.end.finish == finish


@pytest.mark.parametrize(
    "event",
    [
        _event("failed", response={"error": {"code": "server_error", "message": "m"}}),
        {"type": "error", "code": "server_error", "message": "m"},
        {"type": "error", "error": {"code": "server_error", "message": "m"}},
        {"error": {"code": "server_error", "message": "m"}},
    ],
)
def test_an_error_is_found_in_every_form(event: Any) -> None:
    with pytest.raises(ErrorObject) as caught:
        _read(ResponsesReader(), event)
    assert caught.value.error == {"code": "server_error", "message": "m"}


@pytest.mark.parametrize(
    "event",
    [
        _event("output_text.delta", delta="x"),
        _event("output_text.delta", output_index=0, delta=None),
        _event("function_call_arguments.delta", output_index=0, delta="{}"),
        _item(0, {"type": "function_call", "call_id": "c"}),
        _event("completed"),
        7,
    ],
    ids=str,
)
def test_nonsense_of_responses_is_told_apart(event: Any) -> None:
    with pytest.raises(NONSENSE):
        _read(ResponsesReader(), event)


STREAM = (
    "\ufeff: comment\r\n\r\nevent: x\r\nid: 1\r\ndata: one\r\n\r\n\n\ndata:two\n\n"
    "data: three\ndata: lines\n\nretry: 5\n\ndata: f\u00fcnf \U0001f600\r\rdata: [DONE]\n\n"
).encode()


@given(st.lists(st.integers(1, len(STREAM) - 1), unique=True).map(sorted))
def test_events_are_the_same_wherever_the_network_cuts(cuts: list[int]) -> None:
    parser = EventParser()
    found: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(STREAM)], strict=True):
        found += parser.feed(STREAM[start:end])
    assert found == [b"one", b"two", b"three\nlines", "f\u00fcnf \U0001f600".encode(), b"[DONE]"]


def test_an_event_has_a_limit() -> None:
    parser = EventParser(limit=100)
    assert parser.feed(b"data: " + b"x" * 50) == []
    with pytest.raises(ValueError, match="100 bytes"):
        parser.feed(b"x" * 50)
