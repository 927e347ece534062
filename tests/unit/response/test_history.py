"""What a response continues."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from eventstore.events import Head
from runtime.model import CallEnded, ItemOpened, ReasoningDelta, TextDelta
from runtime.response import history
from runtime.response.errors import InvalidInput, PreviousResponseInProgress, PreviousResponseNotFound
from runtime.response.request import ResponseRequest
from runtime.response.snapshot import snapshot_bytes
from tests.golden.scenarios import SCENARIOS, say
from tests.running import ACTIVATE, CANCEL, QUESTION, RESPONSE_ID, USAGE, Running, begin, create

CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "4"}


def head(stream: str, parent: str | None = None, tenant: str = "p", state: str = "completed") -> Head:
    return Head(stream, 0, 1, None, b"", "response", tenant, state, parent, 1, {})


def over(name: str) -> Running:
    running = Running()
    running.obey(*SCENARIOS[name])
    return running


def test_the_snapshot_that_is_kept_is_the_one_that_was_shown() -> None:
    running = over("answer")
    assert history.documents(running.state)["snapshot"] == snapshot_bytes(running.wire[-1])


def test_a_chain_is_all_items_in_order_then_the_new_input() -> None:
    document = history.documents(over("answer").state)["items"]
    told = history.context([document, document], ResponseRequest(model="m", input=(CALL,)))
    assert [item["type"] for item in told] == ["message"] * 4 + ["function_call"]
    assert [item["role"] for item in told[:4]] == ["user", "assistant"] * 2
    assert all("id" in item for item in told[:4])


def test_what_was_half_said_is_not_told_but_a_half_message_is() -> None:
    half = (ItemOpened("reasoning"), ReasoningDelta("Hm"))
    running = Running()
    running.obey(create(), ACTIVATE, begin(), say(*half, CallEnded("length", USAGE)), begin())
    running.obey(say(ItemOpened("function_call", "f", "call_1"), CallEnded("length", USAGE)), begin())
    running.obey(say(ItemOpened("message"), TextDelta("Half a sen")), CANCEL)
    told = history.context([history.documents(running.state)["items"]], ResponseRequest(model="m"))
    assert [item.get("role") for item in told] == ["user", "assistant"]
    history.check_pairing(told)


def test_upstream_ids_go_with_the_items_but_not_with_the_snapshot() -> None:
    kept = history.documents(over("queued_with_every_field").state)
    reasoning = orjson.loads(kept["items"])["output"][0]
    assert reasoning["_upstream"] == {"name": "simulated", "id": "rs_up", "encrypted_content": "gAAA=="}
    assert b"_upstream" not in kept["snapshot"]


def test_what_is_not_stored_cannot_be_continued() -> None:
    running = Running()
    running.obey(create(ResponseRequest(model="m", store=False)), CANCEL)
    assert set(history.documents(running.state)) == {"snapshot"}
    with pytest.raises(PreviousResponseNotFound):
        history.ancestry([(head("a", state="cancelled"), None)], "a", "p")


def test_an_ancestry_is_its_documents_oldest_first() -> None:
    assert history.ancestry([(head("a"), b"1"), (head("b", "a"), b"2")], "b", "p") == [b"1", b"2"]


@pytest.mark.parametrize(
    "lineage",
    [
        [],
        [(head("b", tenant="other"), b"2")],
        [(head("b", state="erased"), None)],
        [(head("b", parent="a"), b"2")],
        [(head("a"), None), (head("b", parent="a"), b"2")],
        [(head("b", tenant="other", state="in_progress"), None)],
        [(head("a", tenant="other"), b"1"), (head("b", parent="a"), b"2")],
    ],
    ids=[
        "unknown",
        "foreign",
        "erased",
        "orphan",
        "erased ancestor",
        "foreign and running",
        "foreign ancestor",
    ],
)
def test_a_parent_that_cannot_be_continued_is_not_found(lineage: Any) -> None:
    with pytest.raises(PreviousResponseNotFound):
        history.ancestry(lineage, "b", "p")


@pytest.mark.parametrize("state", ["queued", "in_progress"])
def test_a_parent_that_still_runs_says_so(state: str) -> None:
    with pytest.raises(PreviousResponseInProgress):
        history.ancestry([(head("b", state=state), None)], "b", "p")


def test_calls_and_outputs_pair_by_call_id_wherever_they_stand() -> None:
    history.check_pairing([QUESTION, CALL, QUESTION, OUTPUT])
    with pytest.raises(InvalidInput, match=r"^No tool output found for function call call_1\.$") as refused:
        history.check_pairing([CALL])
    assert refused.value.param == "input"
    words = r"^No tool call found for function call output with call_id call_1\.$"
    with pytest.raises(InvalidInput, match=words):
        history.check_pairing([OUTPUT])


def test_references_are_resolved_from_documents() -> None:
    running = over("answer")
    document = history.documents(running.state)["items"]
    wanted = running.state.output[0]["id"]
    request = ResponseRequest(model="m", input=({"type": "item_reference", "id": wanted}, QUESTION))
    assert history.references(request) == [wanted]
    found = history.find(document, {wanted, "msg_x"})
    assert [(id, item["role"]) for id, item in found.items()] == [(wanted, "assistant")]
    assert history.resolve(request.input, found) == (found[wanted], QUESTION)
    with pytest.raises(InvalidInput, match=f"Item with id '{wanted}' not found"):
        history.resolve(request.input, {})
    assert history.find(document, {"msg_x"}) == {}


def test_a_resolved_item_keeps_what_is_its_upstreams_but_does_not_show_it() -> None:
    sealed = {"type": "reasoning", "summary": [], "_upstream": {"name": "u", "encrypted_content": "g"}}
    running = Running()
    running.obey(create(ResponseRequest("m", input=(sealed,))), CANCEL)
    [listed] = history.input_items(running.state)
    assert "_upstream" not in listed
    told = history.context([history.documents(running.state)["items"]], ResponseRequest("m"))
    assert told == [{**listed, "_upstream": sealed["_upstream"]}]


def test_input_items_are_listed_with_ids() -> None:
    listed = history.input_items(over("answer").state)
    assert listed[0]["id"] == "msg_" + RESPONSE_ID.removeprefix("resp_") + "800000"
