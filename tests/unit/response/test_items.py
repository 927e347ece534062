"""Ids lead back to their response, and only ours do."""

from __future__ import annotations

from runtime.response import items

RESPONSE = items.new_response_id(bytes(range(16)))


def test_ids_lead_back_to_their_response() -> None:
    assert items.is_response_id(RESPONSE)
    for made in (
        items.output_id(RESPONSE, "message", 3, 1),
        items.output_id(RESPONSE, "function_call", 0x7FFF, 300),
        items.input_id(RESPONSE, "function_call_output", 0),
        items.input_id(RESPONSE, "image_generation_call", 7),
    ):
        assert items.response_of(made) == RESPONSE


def test_inputs_and_outputs_of_one_place_have_different_ids() -> None:
    assert items.output_id(RESPONSE, "message", 0, 0) != items.input_id(RESPONSE, "message", 0)


def test_foreign_ids_lead_nowhere() -> None:
    for foreign in ("", "msg_1", "msg_" + "g" * 38, "msg_" + "a" * 39, "rs_" + "A" * 38, RESPONSE):
        assert items.response_of(foreign) is None
    assert not items.is_response_id("resp_1")
    assert not items.is_response_id(RESPONSE + "\n")


def test_listed_input_items_have_an_id_of_ours_and_a_status() -> None:
    mine = items.output_id(RESPONSE, "message", 0, 0)
    other = items.new_response_id(bytes(16))
    message = {"type": "message", "role": "user", "content": []}
    assert items.with_id({**message, "id": mine}, other, 1)["id"] == mine
    assert items.with_id({**message, "id": "x"}, other, 1)["id"] == items.input_id(other, "message", 1)
    assert items.with_id(message, other, 1)["status"] == "completed"
    assert "status" not in items.with_id({"type": "compaction", "encrypted_content": ""}, other, 1)
