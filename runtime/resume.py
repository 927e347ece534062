"""How an interrupted model call goes on: what is recorded of it, and what is asked of the model.

Pure.  How its answer is fitted to the record is `runtime.seam`'s business.  The log says where a seam is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from runtime.model import JSON, ArgumentsDelta, ReasoningDelta, RefusalDelta, SummaryDelta, TextDelta
from runtime.response.aggregate import OpenItem, PartKind, ResponseState, item_json
from runtime.response.events import Resume
from runtime.response.items import ACTIONS, CALLS
from runtime.seam import Delta, Half, Said, Seam

GO_ON: Final = (
    "Your answer was interrupted right after its last character above. Go on exactly there: your next "
    "character follows it directly, in the middle of a word if need be. Where a new word or line follows, "
    "begin with the white space before it. Repeat nothing, explain nothing, and do not mention the "
    "interruption."
)
"""What follows a half message that goes back to its model."""

WHAT_IS_LEFT: Final = (
    "Your turn was interrupted after your message above, which is whole and was delivered. Do only what you "
    "still meant to do in this turn, such as calling a function. Repeat nothing and do not mention the "
    "interruption."
)
"""What follows a whole message after which the call was interrupted."""

Mode = Literal["prefix", "prompt", "repeat"]

_DELTA_OF: Final[Mapping[PartKind, type[Delta]]] = {
    "output_text": TextDelta,
    "refusal": RefusalDelta,
    "arguments": ArgumentsDelta,
    "reasoning_text": ReasoningDelta,
    "summary_text": SummaryDelta,
}


def said_of(state: ResponseState) -> list[Said]:
    """What is recorded of the current call, but for what it worded anew already."""
    if state.begun_call is None:
        return []
    finished = state.context_items[state.begun_call.first_item :]
    said = [_finished(item) for item in finished if item["status"] == "completed"]
    return said if state.open_item is None else [*said, _open(state.open_item)]


def _finished(item: Mapping[str, JSON]) -> Said:
    texts: dict[type[Delta], str] = {}
    for part in (*item.get("content", ()), *item.get("summary", ())):
        kind = _DELTA_OF[part["type"]]
        texts[kind] = texts.get(kind, "") + str(part.get("text") or part.get("refusal") or "")
    if item["type"] == "function_call":
        texts[ArgumentsDelta] = item["arguments"]
    elif item["type"] == "custom_tool_call":
        texts[ArgumentsDelta] = item["input"]
    action = item.get(ACTIONS.get(item["type"], ""))
    return Said(item["type"], item, texts, name=item.get("name", ""), action=action)


def _open(item: OpenItem) -> Said:
    texts: dict[type[Delta], str] = {}
    for part in item.parts:
        kind = _DELTA_OF[part.kind]
        texts[kind] = texts.get(kind, "") + part.text
    json = item_json(item, "incomplete")
    return Said(item.kind, json, texts, open=True, name=item.name, action=item.action)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a further attempt asks, and how its answer is read."""

    resume: Resume
    seam: Seam
    items: Sequence[Mapping[str, JSON]] = ()
    """What follows the context in the request; with `prefix` the last is the half message itself."""


def plan(said: Sequence[Said], mode: Mode, *, first: bool = False) -> Plan:
    """How a call goes on of which `said` is recorded; `first` where it was never begun.

    A model hears of its function calls only together with their outputs, so neither `prefix` nor `prompt` can
    tell it of those that stand: it is asked for the whole turn again, as `repeat` does.
    """
    if not said:
        return Plan("first" if first else "again", Seam())
    if mode == "repeat" or has_calls(said):
        return Plan("repeat", Seam(said))
    *whole, last = said
    if not last.open:
        return Plan("prompt", Seam(), _told(said, WHAT_IS_LEFT))
    if last.kind != "message":
        return Plan("prompt", Seam([last]), _told(whole, WHAT_IS_LEFT))
    half = Half.of(last)
    if not half.told:
        return Plan("prompt", Seam(half=half), _told(whole, WHAT_IS_LEFT))
    if set(last.texts) != {TextDelta}:
        return Plan("prompt", Seam(half=half), _told(said, GO_ON))  # No server continues half a refusal.
    part = {"type": "output_text", "text": half.told, "annotations": []}
    told = [*whole, replace(last, item={**last.item, "content": [part]})]
    if mode == "prefix":
        return Plan("prefix", Seam(half=replace(half, continues=True)), [one.item for one in told])
    return Plan("prompt", Seam(half=half), _told(told, GO_ON))


def has_calls(said: Sequence[Said]) -> bool:
    """Whether a function call among them is whole."""
    return any(one.kind in CALLS and not one.open for one in said)


def _told(said: Sequence[Said], instruction: str) -> Sequence[Mapping[str, JSON]]:
    items = [one.item for one in said]
    if said and said[-1].kind == "message":
        # A user's message, because many chat templates refuse a system message anywhere but in front.
        content = [{"type": "input_text", "text": instruction}]
        items.append({"type": "message", "role": "user", "content": content})
    return items
