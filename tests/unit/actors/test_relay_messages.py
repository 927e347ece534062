"""How wire events look on public subjects."""

from __future__ import annotations

import pytest

from actors.relay import DATA_BYTES_MAX, messages
from eventstore.events import Batch
from eventstore.nats_public import JetStreamSettings
from eventstore.nats_subjects import UnsafeToken


def batch(
    *frames: bytes, first: int = 4, tenant: str = "proj_1", channel: str = "resp_1", **flags: bool
) -> Batch:
    return Batch(channel, first, len(frames), frames, 7, 9, tenant, **flags)


def frame(kind: str, data: str = "{}") -> bytes:
    return f"event: {kind}\ndata: {data}\n\n".encode()


def test_the_class_and_the_type_are_tokens_of_the_subject() -> None:
    shown = batch(frame("response.created"), frame("response.output_text.delta"), frame("error"))
    assert [subject for subject, _, _ in messages(shown, "inc")] == [
        "rayspond.proj_1.events.resp_1.response.created",
        "rayspond.proj_1.deltas.resp_1.response.output_text.delta",
        "rayspond.proj_1.events.resp_1.error",
    ]


def test_the_payload_is_the_data_of_the_frame_to_the_byte() -> None:
    data = '{"text":"ü \\n data: x","n":1.0}'
    ((_, payload, headers),) = messages(batch(frame("response.created", data)), "inc")
    assert payload == data.encode()
    assert headers["Nats-Msg-Id"] == headers["ce-id"] == "inc:resp_1:4"
    assert (headers["ce-position"], headers["ce-version"], headers["ce-sequencenumber"]) == ("9", "7", "4")


def test_what_will_be_erased_is_transient_and_never_captured() -> None:
    shown = batch(frame("response.created"), frame("response.output_text.delta"), transient=True)
    subjects = [subject for subject, _, _ in messages(shown, "inc")]
    assert subjects == [
        "rayspond.proj_1.transient.resp_1.response.created",
        "rayspond.proj_1.transient.resp_1.response.output_text.delta",
    ]
    everything = JetStreamSettings(subjects=("rayspond.*.events.>", "rayspond.*.deltas.>"))
    assert not any(everything.captures(subject) for subject in subjects)


@pytest.mark.parametrize(
    ("kind", "status", "last", "shown"),
    [
        ("response.incomplete", "cancelled", True, "response.cancelled"),
        ("response.incomplete", "incomplete", True, "response.incomplete"),
        ("response.completed", "completed", True, "response.completed"),
        ("response.in_progress", "cancelled", False, "response.in_progress"),
    ],
)
def test_a_cancelled_response_ends_in_cancelled(kind: str, status: str, last: bool, shown: str) -> None:
    """Only its last event; the data stays what clients saw."""
    data = f'{{"response":{{"status":"{status}"}}}}'
    *_, (subject, payload, headers) = messages(batch(frame("error"), frame(kind, data), last=last), "inc")
    assert subject == f"rayspond.proj_1.events.resp_1.{shown}"
    assert headers["ce-type"] == shown
    assert payload == data.encode()


def test_large_data_is_referred_to() -> None:
    fits, large = "x" * DATA_BYTES_MAX, "x" * (DATA_BYTES_MAX + 1)
    first, second = messages(
        batch(frame("response.completed", fits), frame("response.completed", large)), "inc"
    )
    assert first[1] == fits.encode()
    assert "ce-dataref" not in first[2]
    assert second[1] == b""
    assert second[2]["ce-dataref"] == "/v1/responses/resp_1?stream=true&starting_after=4"


@pytest.mark.parametrize("hostile", ["", "*", ">", "a.b", "a b", "a\r\nPUB x 0\r\n\r\n", "x" * 129])
def test_hostile_names_make_no_subject(hostile: str) -> None:
    with pytest.raises(UnsafeToken):
        messages(batch(frame("response.created"), tenant=hostile), "inc")
    with pytest.raises(UnsafeToken):
        messages(batch(frame("response.created"), channel=hostile), "inc")
    with pytest.raises(UnsafeToken):
        messages(batch(frame(f"response.{hostile}.*")), "inc")


@pytest.mark.parametrize(
    ("subject", "captured"),
    [
        ("rayspond.p.events.r.response.created", True),
        ("rayspond.p.events", False),
        ("rayspond.p.deltas.r.x", False),
        ("rayspond.p.transient.r.x", False),
        ("_rs.live.r", False),
    ],
)
def test_what_the_stream_captures(subject: str, captured: bool) -> None:
    assert JetStreamSettings().captures(subject) is captured
