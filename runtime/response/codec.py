"""Events to bytes and back.  The names here are a file format: a stored name never changes.

`runtime.event_codec` says what the bytes are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eventstore.events import ERASED
from runtime.event_codec import SCHEMA, EventCodec
from runtime.model import Usage
from runtime.response import events as e
from runtime.response.request import ResponseRequest

__all__ = ["SCHEMA", "decode", "encode"]

_CLASSES: Final[Mapping[str, type[e.Event]]] = {
    "response_created": e.ResponseCreated,
    "activation_started": e.ActivationStarted,
    "model_call_started": e.ModelCallStarted,
    "item_started": e.ItemStarted,
    "text_appended": e.TextAppended,
    "refusal_appended": e.RefusalAppended,
    "arguments_appended": e.ArgumentsAppended,
    "reasoning_appended": e.ReasoningAppended,
    "summary_appended": e.SummaryAppended,
    "item_ended": e.ItemEnded,
    "model_call_ended": e.ModelCallEnded,
    "model_call_failed": e.ModelCallFailed,
    "tool_started": e.ToolStarted,
    "tool_finished": e.ToolFinished,
    "response_completed": e.ResponseCompleted,
    "response_incomplete": e.ResponseIncomplete,
    "response_failed": e.ResponseFailed,
    "response_cancelled": e.ResponseCancelled,
    ERASED: e.Erased,
}
_CODEC: Final[EventCodec[e.Event]] = EventCodec(
    _CLASSES,
    fields_as={
        "request": (ResponseRequest.to_json, ResponseRequest.from_json),
        "usage": (
            lambda usage: [getattr(usage, name) for name in Usage.__slots__],
            lambda counts: Usage(*counts),
        ),
        "deltas": (tuple, tuple),
        "logprobs": (tuple, lambda told: tuple(map(tuple, told))),
        "opt_ins": (tuple, tuple),
    },
    short={"deltas": "d"},  # Deltas are the bulk of the log.
)

encode: Final = _CODEC.encode
decode: Final = _CODEC.decode
