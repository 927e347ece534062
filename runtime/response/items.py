"""Items and their ids.  An id is derived from where the item stands, and leads back to it.

`<prefix>_<32 hex of the response's id><4 hex index><2 hex attempt>`: outputs count from 0, inputs from
0x8000; the attempt is the try of the model call in which the item began.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from runtime.model import JSON

RESPONSE_PREFIX: Final = "resp_"
CALL_ID_CHARS_MAX: Final = 64  # PROTOCOL.md, section e.
_INPUT: Final = 0x8000  # So a request may hold 32,768 items, and an answer as many.
_ATTEMPT_MAX: Final = 0xFF
ADDITIONAL: Final = "additional_tools"
"""The input item that offers tools beside the request's own list, in whatever continues it, too."""
_PREFIXES: Final[Mapping[str, str]] = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "compaction": "cmp",
    ADDITIONAL: "at",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "shell_call": "sh",
    "shell_call_output": "sho",
    "local_shell_call": "lsh",
    "local_shell_call_output": "lsho",
    "apply_patch_call": "apc",
    "apply_patch_call_output": "apco",
}
CALLS: Final = ("function_call", "custom_tool_call", "shell_call", "local_shell_call", "apply_patch_call")
"""Items that ask the client to run something, and whose outputs it sends back."""
OUTPUTS: Final = tuple(f"{kind}_output" for kind in CALLS)
ACTIONS: Final[Mapping[str, str]] = {
    "shell_call": "action",
    "local_shell_call": "action",
    "apply_patch_call": "operation",
}
"""Calls that hold what is to be done as JSON, and under which key."""
_WITH_STATUS: Final = frozenset({"message", "reasoning", *CALLS, *OUTPUTS})
_ITEM_ID: Final = re.compile(r"[a-z]+_([0-9a-f]{32})[0-9a-f]{6}")
_RESPONSE_ID: Final = re.compile(r"resp_[0-9a-f]{32}")


def new_response_id(random_bytes: bytes) -> str:
    """A response's id from 16 random bytes."""
    assert len(random_bytes) == 16, "an id holds 128 random bits"
    return RESPONSE_PREFIX + random_bytes.hex()


def is_response_id(text: str) -> bool:
    """Whether this can be an id of ours.  What cannot is unknown, without a look into the log."""
    return _RESPONSE_ID.fullmatch(text) is not None


def output_id(response_id: str, kind: str, index: int, attempt: int) -> str:
    """The id of an output item."""
    return _derived(_PREFIXES[kind], response_id, index, attempt)


def call_id(response_id: str, index: int, attempt: int) -> str:
    """The call id of a function call whose upstream gave no usable one."""
    return _derived("call", response_id, index, attempt)


def input_id(response_id: str, kind: str, index: int) -> str:
    """The id of an input item."""
    return _derived(_PREFIXES.get(kind, "item"), response_id, index | _INPUT, 0)


def call_of(item: Mapping[str, JSON]) -> str:
    """The call id of a call or an output."""
    return str(item.get("call_id"))


def fresh_id(kind: str, random_bytes: bytes, index: int) -> str:
    """The id of an item that no response holds, from 16 random bytes and its place among those with them."""
    return _derived(_PREFIXES.get(kind, "item"), random_bytes.hex(), index | _INPUT, 0)


def tool_output(response_id: str, index: int, call_id: str, output: str, status: str) -> dict[str, Any]:
    """An output item: what became of a call whose tool the server runs."""
    kind = "function_call_output"
    item = {"id": output_id(response_id, kind, index, 0), "type": kind, "status": status}
    return {**item, "call_id": call_id, "output": output}


def unanswered(said: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The whole calls among these items that have no output there."""
    answered = {call_of(item) for item in said if item["type"] in OUTPUTS}
    whole = [item for item in said if item["type"] in CALLS and item["status"] == "completed"]
    return [call for call in whole if call_of(call) not in answered]


def response_of(item_id: str) -> str | None:
    """The id of the response whose item this is, or None for an id that is not ours."""
    match = _ITEM_ID.fullmatch(item_id)
    return RESPONSE_PREFIX + match[1] if match else None


def with_id(item: Mapping[str, JSON], response_id: str, index: int) -> dict[str, Any]:
    """An input item as it is listed: with an id and a status.

    An id of ours that the client sent back is kept, so that an item is known by one id wherever it is shown.
    """
    given = item.get("id")
    known = isinstance(given, str) and response_of(given) is not None
    return known_as(str(given) if known else input_id(response_id, str(item["type"]), index), item)


def known_as(id: str, item: Mapping[str, JSON]) -> dict[str, Any]:
    """The item as it is listed under that id, whatever id it had."""
    listed = {"id": id} | {key: value for key, value in item.items() if key != "id"}
    if item["type"] in _WITH_STATUS:
        listed.setdefault("status", "completed")
    return listed


def _derived(prefix: str, response_id: str, index: int, attempt: int) -> str:
    root = response_id.removeprefix(RESPONSE_PREFIX)
    return f"{prefix}_{root}{index:04x}{min(attempt, _ATTEMPT_MAX):02x}"
