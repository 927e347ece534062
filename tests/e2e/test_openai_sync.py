"""What users do with OpenAI's own client, synchronously: every word compared with what the upstream said."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseFunctionToolCall

from tests.e2e.upstream import Upstream, own
from tests.fakes.script import words
from tests.launching import until

PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def ended(client: openai.OpenAI, response_id: str) -> Response:
    """Poll until it is over."""

    def over() -> Response | None:
        found = client.responses.retrieve(response_id)
        return found if found.status not in ("queued", "in_progress") else None

    response: Response = until(over, f"the end of {response_id}")
    return response


def calls_of(response: Response) -> list[ResponseFunctionToolCall]:
    return [item for item in response.output if isinstance(item, ResponseFunctionToolCall)]


def output(call: ResponseFunctionToolCall, text: str) -> Any:
    return {"type": "function_call_output", "call_id": call.call_id, "output": text}


# -- What is asked -----------------------------------------------------------------------------------------


def test_text_and_instructions_reach_the_upstream(client: openai.OpenAI, upstream: Upstream) -> None:
    model = own("deltas=40")
    response = client.responses.create(
        model=model, instructions="Be brief.", input="Hé, wörld 🌍?", temperature=0.5
    )
    assert response.output_text == "".join(words(40))
    assert (response.status, response.model, response.instructions) == ("completed", model, "Be brief.")
    [asked] = upstream.calls(model)
    assert [(message["role"], message["content"]) for message in asked["messages"]] == [
        ("system", "Be brief."),
        ("user", "Hé, wörld 🌍?"),
    ]
    assert asked["temperature"] == 0.5
    assert client.responses.retrieve(response.id) == response


def test_images_and_files_reach_the_upstream(client: openai.OpenAI, upstream: Upstream) -> None:
    model = own()
    file = "data:application/pdf;base64,JVBERi0xLjQK"
    response = client.responses.create(
        model=model,
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is this?"},
                    {"type": "input_image", "image_url": PIXEL, "detail": "low"},
                    {"type": "input_file", "filename": "a.pdf", "file_data": file},
                ],
            }
        ],
    )
    assert response.output_text == "".join(words(8))
    [asked] = upstream.calls(model)
    text, image, sent = asked["messages"][-1]["content"]
    assert text == {"type": "text", "text": "What is this?"}
    assert image["image_url"] == {"url": PIXEL, "detail": "low"}
    assert sent["file"] == {"filename": "a.pdf", "file_data": file}
    [item] = client.responses.input_items.list(response.id)
    assert [part["type"] for part in item.to_dict()["content"]] == [  # type: ignore[attr-defined]  # The union is too wide to name.
        "input_text",
        "input_image",
        "input_file",
    ]


def test_the_upstream_s_own_words_come_back_unchanged(client: openai.OpenAI) -> None:
    said = 'Zażółć\tgęślą   jaźń — 漢字 \U0001f9d1‍\U0001f680 "quoted" \\ back\r\nslash </script>'
    response = client.responses.create(model=own("echo=1"), input=said)
    assert response.output_text == said


# -- Streams -----------------------------------------------------------------------------------------------


def test_a_stream_has_every_event_in_order(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model=own("deltas=5&reasoning=2"), input="x", stream=True))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.reasoning_text.delta"] * 2,
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 5,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert tuple(event.delta for event in events if event.type == "response.output_text.delta") == words(5)


def test_the_stream_helper_follows(client: openai.OpenAI) -> None:
    with client.responses.stream(model=own("deltas=30&interval_ms=5"), input="x") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == "".join(words(30))
    with client.responses.stream(response_id=final.id, starting_after=4) as again:
        assert again.get_final_response().output_text == text


def test_the_other_adapter_streams_reasoning_and_tools(client: openai.OpenAI) -> None:
    with client.responses.stream(model="other-wire", input="x") as stream:
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.output_text == "".join(words(8))
    called = client.responses.create(model="other-wire-tools", input="x", tools=[WEATHER])
    assert [call.name for call in calls_of(called)] == ["get_weather"] * 2
    answer = client.responses.create(
        model="other-wire-tools",
        input=[output(call, "rain") for call in calls_of(called)],
        previous_response_id=called.id,
        tools=[WEATHER],
    )
    assert answer.output_text == "".join(words(8))


# -- Background --------------------------------------------------------------------------------------------


def test_a_background_response_is_polled(client: openai.OpenAI) -> None:
    response = client.responses.create(model=own("deltas=20&interval_ms=20"), input="x", background=True)
    assert response.status in ("queued", "in_progress")
    assert response.background
    assert ended(client, response.id).output_text == "".join(words(20))


# -- Cancel and delete -------------------------------------------------------------------------------------


def test_cancel_ends_what_runs_and_its_upstream_call(client: openai.OpenAI, upstream: Upstream) -> None:
    model = own("deltas=3000&interval_ms=20")
    response = client.responses.create(model=model, input="x", background=True)
    until(lambda: upstream.count(model), "the upstream's call")
    before = upstream.seen()["aborted"]
    cancelled = client.responses.cancel(response.id)
    assert cancelled.status == "cancelled"
    assert client.responses.cancel(response.id) == cancelled
    assert client.responses.retrieve(response.id) == cancelled
    until(lambda: upstream.seen()["aborted"] > before, "the end of the upstream's call")
    assert "".join(words(3000)).startswith(cancelled.output_text)


def test_cancel_leaves_a_finished_response_as_it_is(client: openai.OpenAI) -> None:
    response = client.responses.create(model=own(), input="x")
    assert client.responses.cancel(response.id) == response
    assert client.responses.retrieve(response.id) == response


def test_a_deleted_response_is_gone(client: openai.OpenAI) -> None:
    response = client.responses.create(model=own(), input="x")
    client.responses.delete(response.id)
    for gone in (client.responses.retrieve, client.responses.cancel, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            gone(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.input_items.list(response.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=own(), input="x", previous_response_id=response.id)
    assert refused.value.code == "previous_response_not_found"


def test_deleting_what_runs_ends_it(client: openai.OpenAI, upstream: Upstream) -> None:
    model = own("deltas=3000&interval_ms=20")
    response = client.responses.create(model=model, input="x", background=True)
    until(lambda: upstream.count(model), "the upstream's call")
    before = upstream.seen()["aborted"]
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    until(lambda: upstream.seen()["aborted"] > before, "the end of the upstream's call")


def test_input_items_come_in_pages(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": f"question {n}"} for n in range(5)]
    response = client.responses.create(model=own(), input=asked)
    listed = [
        item.to_dict()["content"][0]["text"]  # type: ignore[index]  # The union is too wide to name.
        for item in client.responses.input_items.list(response.id, limit=2, order="asc")
    ]
    assert listed == [f"question {n}" for n in range(5)]
    newest = client.responses.input_items.list(response.id, limit=2)
    assert newest.has_more
    assert newest.data[0].to_dict()["content"] == [{"type": "input_text", "text": "question 4"}]


# -- Tools -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["tools=1", "tools=3&interleave=1"])
def test_function_tools_make_the_whole_round_trip(
    client: openai.OpenAI, upstream: Upstream, script: str
) -> None:
    model = own(script)
    first = client.responses.create(model=model, input="The weather?", tools=[WEATHER])
    calls = calls_of(first)
    assert len(calls) == int(script[6])
    assert len({call.call_id for call in calls}) == len(calls)
    assert all(json.loads(call.arguments) == {"city": "Paris", "unit": "celsius"} for call in calls)
    second = client.responses.create(
        model=model,
        previous_response_id=first.id,
        input=[output(call, f"{n} degrees") for n, call in enumerate(calls)],
        tools=[WEATHER],
    )
    assert second.output_text == "".join(words(8))
    told = upstream.calls(model)[-1]["messages"]
    made = [call for message in told for call in message.get("tool_calls", ())]
    assert [call["id"] for call in made] == [call.call_id for call in calls]
    outputs = [message for message in told if message["role"] == "tool"]
    assert [one["content"] for one in outputs] == [f"{n} degrees" for n in range(len(calls))]
    assert [one["tool_call_id"] for one in outputs] == [call.call_id for call in calls]


def test_a_call_without_its_output_is_refused(client: openai.OpenAI, upstream: Upstream) -> None:
    model = own("tools=2")
    first = client.responses.create(model=model, input="x", tools=[WEATHER])
    for given in ([], [output(calls_of(first)[0], "rain")]):
        with pytest.raises(openai.BadRequestError):
            client.responses.create(
                model=model,
                previous_response_id=first.id,
                input=[*given, {"role": "user", "content": "go on"}],
                tools=[WEATHER],
            )
    with pytest.raises(openai.BadRequestError, match="call_unknown"):
        client.responses.create(
            model=model,
            input=[{"type": "function_call_output", "call_id": "call_unknown", "output": "x"}],
        )
    assert upstream.count(model) == 1


# -- Reasoning, usage, limits ------------------------------------------------------------------------------


def test_usage_is_the_upstream_s(client: openai.OpenAI) -> None:
    usage = client.responses.create(model=own("deltas=5&reasoning=3"), input="x").usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (11, 8, 19)
    assert usage.input_tokens_details.cached_tokens == 3
    assert usage.output_tokens_details.reasoning_tokens == 3


def test_a_limit_of_tokens_leaves_the_answer_incomplete(client: openai.OpenAI) -> None:
    response = client.responses.create(model=own("deltas=50"), input="x", max_output_tokens=16)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text == "".join(words(50)[:16])
    assert response.max_output_tokens == 16


# -- Failing upstreams -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code", "tries"),
    [
        ("status=401", "upstream_auth", 1),
        ("status=404", "upstream_not_found", 1),
        ("status=400", "invalid_prompt", 1),
        ("status=429&retry_after_ms=10", "rate_limit_exceeded", 3),
        ("status=500&retry_after_ms=10", "server_error", 3),
        ("garbage_after=2", "upstream_protocol", 1),
        ("content_type=text/html", "upstream_protocol", 1),
        ("error_after=2&code=server_error", "server_error", 3),
    ],
)
def test_a_failing_upstream_fails_the_response(
    client: openai.OpenAI, upstream: Upstream, script: str, code: str, tries: int
) -> None:
    model = own(script)
    response = client.responses.create(model=model, input="x")
    assert response.status == "failed"
    assert response.error is not None
    assert response.error.code == code
    assert "sk-" not in response.error.message
    assert upstream.count(model) == tries
    assert client.responses.retrieve(response.id) == response


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("cut_after=3", "upstream_interrupted"),
        ("end_after=3", "upstream_interrupted"),
        ("stall_after=3", "upstream_timeout"),
    ],
)
def test_an_upstream_that_never_finishes_is_given_up(
    client: openai.OpenAI, upstream: Upstream, script: str, code: str
) -> None:
    model = own(script)
    response = client.responses.create(model=model, input="x")
    assert response.error is not None
    assert (response.status, response.error.code) == ("failed", code)
    assert upstream.count(model) == 3


@pytest.mark.parametrize("fault", ["status=503&retry_after_ms=10", "cut_after=3", "cut_after=0"])
def test_an_upstream_that_recovers_gives_the_whole_answer(
    client: openai.OpenAI, upstream: Upstream, fault: str
) -> None:
    model = own(f"{fault}&fail_first=1&goes_on=1&deltas=12")
    events = list(client.responses.create(model=model, input="x", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    end = events[-1]
    assert end.type == "response.completed"
    assert end.response.output_text == "".join(words(12))
    assert upstream.count(model) == 2


def test_what_cannot_be_reached_or_entered_says_so(client: openai.OpenAI) -> None:
    for model, code in (("nobody", "upstream_unreachable"), ("locked", "upstream_auth")):
        response = client.responses.create(model=model, input="x")
        assert response.error is not None
        assert (response.status, response.error.code) == ("failed", code)


def test_a_stream_of_a_failing_upstream_raises_in_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="fake failed"):
        list(client.responses.create(model=own("status=401"), input="x", stream=True))


# -- Chains ------------------------------------------------------------------------------------------------


def test_a_chain_of_twenty_tells_the_upstream_all_of_it(client: openai.OpenAI, upstream: Upstream) -> None:
    model = own("echo=1")
    parent: str | None = None
    for turn in range(20):
        response = client.responses.create(
            model=model,
            input=f"turn {turn}",
            previous_response_id=parent,
            instructions=f"rules of turn {turn}",
        )
        assert response.output_text == f"turn {turn}"
        assert response.previous_response_id == parent
        parent = response.id
    told = [(message["role"], message["content"]) for message in upstream.calls(model)[-1]["messages"]]
    expected = [("system", "rules of turn 19")]
    for turn in range(20):
        expected += [("user", f"turn {turn}"), ("assistant", f"turn {turn}")]
    assert told == expected[:-1]


def test_a_response_forks(client: openai.OpenAI, upstream: Upstream) -> None:
    model = own("echo=1")
    root = client.responses.create(model=model, input="root")
    forks = [
        client.responses.create(model=model, input=f"fork {n}", previous_response_id=root.id)
        for n in range(3)
    ]
    assert [fork.output_text for fork in forks] == ["fork 0", "fork 1", "fork 2"]
    for n, call in enumerate(upstream.calls(model)[1:]):
        assert [message["content"] for message in call["messages"]] == ["root", "root", f"fork {n}"]


@pytest.mark.parametrize("parent", ["resp_unknown", "resp_" + "0" * 32, "", "../etc", "msg_1"])
def test_an_unknown_parent_is_refused(client: openai.OpenAI, parent: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=own(), input="x", previous_response_id=parent)
    assert refused.value.code == "previous_response_not_found"
    assert refused.value.param == "previous_response_id"


def test_a_parent_that_still_runs_is_refused(client: openai.OpenAI) -> None:
    parent = client.responses.create(model=own("deltas=3000&interval_ms=20"), input="x", background=True)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=own(), input="y", previous_response_id=parent.id)
    assert refused.value.code == "previous_response_in_progress"
    client.responses.cancel(parent.id)


# -- Models and storage ------------------------------------------------------------------------------------


def test_models_are_listed(client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert {"simulated", "repeats", "clerk"} <= set(listed)
    assert client.models.retrieve("repeats").object == "model"
    assert client.models.retrieve("clerk").id == "clerk"


def test_an_agent_s_instructions_go_first(client: openai.OpenAI, upstream: Upstream) -> None:
    response = client.responses.create(model="clerk", input="x", background=True)
    until(lambda: upstream.calls("fake?deltas=100&interval_ms=50&goes_on=1&key=goes-on"), "the call")
    asked = upstream.calls("fake?deltas=100&interval_ms=50&goes_on=1&key=goes-on")[-1]
    assert asked["messages"][0] == {"role": "system", "content": "You are a clerk."}
    client.responses.cancel(response.id)


def test_what_is_not_stored_cannot_be_read_afterwards(client: openai.OpenAI) -> None:
    response = client.responses.create(model=own(), input="x", store=False)
    assert response.output_text == "".join(words(8))
    assert response.store is False  # type: ignore[attr-defined]  # The SDK's type lacks it.
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model=own(), input="y", previous_response_id=response.id)
