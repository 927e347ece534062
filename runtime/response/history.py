"""What a response continues: the items behind `previous_response_id`, and the rules that they obey.

When a response ends, its items are kept in a document beside its stream.  A chain of any length is then read
by one `LogReader.lineage(parent, "items")`: items only, never deltas.  Instructions are not inherited.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from eventstore.events import Head
from runtime.compaction import TRIGGER, compacted
from runtime.model import JSON
from runtime.response.aggregate import ResponseState, Status
from runtime.response.errors import InvalidInput, PreviousResponseInProgress, PreviousResponseNotFound
from runtime.response.items import CALLS, OUTPUTS, call_of, with_id
from runtime.response.request import ResponseRequest
from runtime.response.snapshot import response_object
from runtime.response.standing import RUNNING
from runtime.response.wire import dumps

Item = Mapping[str, JSON]
Items = Sequence[Item]

SNAPSHOT: Final = "snapshot"
"""Kind of the document that holds the finished response object."""
ITEMS: Final = "items"
"""Kind of the document that holds what a later response continues: `{"input": [...], "output": [...]}`."""

_ANSWERED: Final = (Status.COMPLETED, Status.INCOMPLETE)
# What is half said is kept for the audit, but a model is not told of it.
_WHOLE_OR_NOT_AT_ALL: Final = (*CALLS, "reasoning")


def documents(state: ResponseState) -> dict[str, bytes]:
    """What is kept beside the stream of a response that is over, by kind."""
    assert state.is_over, "what still runs may change"
    kept = {SNAPSHOT: dumps(response_object(state))}
    if state.request.store:  # The others cannot be continued.
        kept[ITEMS] = dumps({"input": _with_ids(state), "output": state.context_items})
    return kept


def input_items(state: ResponseState) -> list[dict[str, Any]]:
    """The request's items as they are listed to clients: oldest first, each with an id."""
    return [{key: value for key, value in item.items() if key != "_upstream"} for item in _with_ids(state)]


def ancestry(
    lineage: Sequence[tuple[Head, bytes | None]], previous_response_id: str, project: str
) -> list[bytes]:
    """The documents of a parent and its ancestors, oldest first, from what `LogReader.lineage` found.

    Raises `PreviousResponseInProgress`, or `PreviousResponseNotFound` where any of them is unknown, foreign,
    erased or was not to be stored.
    """
    if not lineage or lineage[-1][0].tenant != project:
        raise PreviousResponseNotFound(previous_response_id)
    if lineage[-1][0].state in RUNNING:
        raise PreviousResponseInProgress(previous_response_id)
    found: list[bytes] = []
    for head, document in lineage:
        if document is None or head.tenant != project:
            raise PreviousResponseNotFound(head.stream)
        found.append(document)
    oldest = lineage[0][0]
    if oldest.parent is not None:
        raise PreviousResponseNotFound(oldest.parent)
    return found


def conversation_items(state: ResponseState) -> tuple[dict[str, Any], ...]:
    """What a response that is over adds to its conversation: its input, and what it said as a whole.

    Nothing where there is no answer: whoever asks again sends the input again.
    """
    assert state.is_over, "what still runs may change"
    if state.status not in _ANSWERED:
        return ()
    asked = [item for item in _with_ids(state) if item["type"] != TRIGGER]
    return (*asked, *filter(is_whole, state.context_items))


def context(ancestors: Iterable[bytes], request: ResponseRequest, conversation: Items = ()) -> list[Item]:
    """What the model is told: every ancestor's input and output, or a conversation, then the new input.

    What a compaction stands for is left out.

    Items keep their `_upstream` (see `ModelRequest.items`).  References must have been resolved.
    """
    told: list[Item] = [item for item in conversation if is_whole(item)]
    for document in ancestors:
        items = orjson.loads(document)
        told += [item for item in (*items["input"], *items["output"]) if is_whole(item)]
    return list(compacted([*told, *(dict(item) for item in request.input)]))


def check_pairing(items: Sequence[Item]) -> None:
    """Every function call has its output and every output its call.  Raises `InvalidInput` in OpenAI's words.

    They are paired by `call_id`, wherever they stand.
    """
    called = {call_of(item): _words(item) for item in items if item.get("type") in CALLS}
    answered = {call_of(item): _words(item) for item in items if item.get("type") in OUTPUTS}
    for call_id, words in answered.items():
        if call_id not in called:
            raise InvalidInput(f"No tool call found for {words} with call_id {call_id}.")
    for call_id, words in called.items():
        if call_id not in answered:
            raise InvalidInput(f"No tool output found for {words} {call_id}.")


def _words(item: Item) -> str:
    return str(item["type"]).replace("_", " ")


def references(request: ResponseRequest) -> list[str]:
    """The ids of items that the input only refers to.  `items.response_of` names their responses."""
    return [str(item["id"]) for item in request.input if item.get("type") == "item_reference"]


def find(document: bytes, wanted: Container[str]) -> dict[str, Item]:
    """Those of the wanted items that are in an items document, by id."""
    items = orjson.loads(document)
    # What was said first counts, should a client have sent an id of its own twice.
    return {
        item["id"]: item for item in reversed([*items["input"], *items["output"]]) if item.get("id") in wanted
    }


def resolve(input: Iterable[Item], lookup: Mapping[str, Item]) -> tuple[Item, ...]:
    """The input with each reference replaced by its item.  Raises `InvalidInput` for one that is missing."""
    return tuple(_resolved(item, lookup) for item in input)


def _with_ids(state: ResponseState) -> list[dict[str, Any]]:
    return [with_id(item, state.id, index) for index, item in enumerate(state.request.input)]


def _resolved(item: Item, lookup: Mapping[str, Item]) -> Item:
    if item.get("type") != "item_reference":
        return item
    found = lookup.get(str(item["id"]))
    if found is None:
        raise InvalidInput(
            f"Item with id '{item['id']}' not found. Items are not persisted when `store` is set to false. "
            "Send the item itself instead of a reference."
        )
    return found


def is_whole(item: Item) -> bool:
    """Whether a model is told of the item."""
    return not (item["type"] in _WHOLE_OR_NOT_AT_ALL and item.get("status") == "incomplete")
