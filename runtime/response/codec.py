"""Events to bytes and back.  The names here are a file format: a stored name never changes.

Payloads are compact JSON objects of what differs from the defaults (docs/adr/0001-log-format.md).  A change
of shape is a new schema: a new row of `_SCHEMAS`, while the older rows go on to read what they wrote and
upcast it to today's events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final

import orjson

from eventstore.events import ERASED, NewEvent, Record
from runtime.model import Usage
from runtime.response import events as e
from runtime.response.errors import UnknownEvent
from runtime.response.request import ResponseRequest
from runtime.response.wire import dumps

SCHEMA: Final = 1
"""Version of the vocabulary that is written."""

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
    "response_completed": e.ResponseCompleted,
    "response_incomplete": e.ResponseIncomplete,
    "response_failed": e.ResponseFailed,
    "response_cancelled": e.ResponseCancelled,
    ERASED: e.Erased,
}
_NAMES: Final[Mapping[type[e.Event], str]] = {cls: name for name, cls in _CLASSES.items()}
_DEFAULTS: Final[Mapping[type[e.Event], Mapping[str, Any]]] = {
    cls: {field.name: field.default for field in fields(cls)} for cls in _CLASSES.values()
}
_SHORT: Final = {"deltas": "d"}  # Deltas are the bulk of the log.
_LONG: Final = {short: long for long, short in _SHORT.items()}
_TO_JSON: Final[Mapping[str, Callable[[Any], Any]]] = {
    "request": ResponseRequest.to_json,
    "usage": lambda usage: [getattr(usage, name) for name in Usage.__slots__],
}
_FROM_JSON: Final[Mapping[str, Callable[[Any], Any]]] = {
    "request": ResponseRequest.from_json,
    "usage": lambda counts: Usage(*counts),
    "deltas": tuple,
    "opt_ins": tuple,
}


def encode(event: e.Event) -> NewEvent:
    """The recorded form."""
    cls = type(event)
    data = {}
    for name, default in _DEFAULTS[cls].items():
        value = getattr(event, name)
        if default is MISSING or value != default:
            to_json = _TO_JSON.get(name)
            data[_SHORT.get(name, name)] = value if to_json is None else to_json(value)
    return NewEvent(_NAMES[cls], dumps(data))


def decode(record: Record) -> list[e.Event]:
    """The events of a record; of an erased one, none.

    Raises `UnknownEvent`: what is not known is never skipped.
    """
    reader = _SCHEMAS.get(record.schema)
    if reader is None:
        raise UnknownEvent(record.stream, record.first_version, f"schema {record.schema}")
    if record.payload is None:
        return []
    events = []
    for version, (name, data) in enumerate(
        zip(record.types, record.payload, strict=True), record.first_version
    ):
        try:
            events.append(reader(name, data))
        except (KeyError, TypeError) as error:
            what = f"an event {name!r} of schema {record.schema} ({error})"
            raise UnknownEvent(record.stream, version, what) from error
    return events


def _read_1(name: str, data: bytes) -> e.Event:
    arguments: dict[str, Any] = {}
    stored: dict[str, Any] = orjson.loads(data)
    for key, value in stored.items():
        field = _LONG.get(key, key)
        from_json = _FROM_JSON.get(field)
        arguments[field] = value if from_json is None else from_json(value)
    return _CLASSES[name](**arguments)


_SCHEMAS: Final[Mapping[int, Callable[[str, bytes], e.Event]]] = {1: _read_1}
