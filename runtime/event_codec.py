"""Events of one kind of aggregate to bytes and back, by a table of stored names.

Payloads are compact JSON objects of what differs from the defaults (docs/adr/0001-log-format.md).  A change
of shape is a new schema beside the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final, Generic, TypeVar

import orjson

from eventstore.events import NewEvent, Record
from runtime.response.errors import UnknownEvent

E = TypeVar("E")

SCHEMA: Final = 1
"""Version of the vocabulary that is written."""


class EventCodec(Generic[E]):
    """Writes and reads dataclasses whose fields are JSON, or made so by the functions of `fields`."""

    def __init__(
        self,
        names: Mapping[str, type[E]],
        *,
        fields_as: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] | None = None,
        short: Mapping[str, str] | None = None,
    ) -> None:
        """`names` are a file format: a stored name never changes.

        `fields_as` gives the functions to and from JSON of fields that are not JSON by themselves; `short`
        the stored names of fields that are the bulk of a log.
        """
        self._classes = dict(names)
        self._names = {cls: name for name, cls in names.items()}
        self._defaults: dict[type[E], dict[str, Any]] = {
            cls: {field.name: field.default for field in fields(cls)}  # type: ignore[arg-type]  # all are dataclasses
            for cls in names.values()
        }
        self._to_json = {name: to for name, (to, _) in (fields_as or {}).items()}
        self._from_json = {name: back for name, (_, back) in (fields_as or {}).items()}
        self._short = dict(short or {})
        self._long = {short_name: long_name for long_name, short_name in self._short.items()}

    def encode(self, event: E) -> NewEvent:
        """The recorded form."""
        cls = type(event)
        data = {}
        for name, default in self._defaults[cls].items():
            value = getattr(event, name)
            if default is MISSING or value != default:
                to_json = self._to_json.get(name)
                data[self._short.get(name, name)] = value if to_json is None else to_json(value)
        return NewEvent(self._names[cls], orjson.dumps(data))

    def decode(self, record: Record) -> list[E]:
        """The events of a record; of an erased one, none.

        Raises `UnknownEvent`: what is not known is never skipped.
        """
        if record.schema != SCHEMA:
            raise UnknownEvent(record.stream, record.first_version, f"schema {record.schema}")
        if record.payload is None:
            return []
        events = []
        for version, (name, data) in enumerate(
            zip(record.types, record.payload, strict=True), record.first_version
        ):
            try:
                events.append(self._read(name, data))
            except (KeyError, TypeError) as error:
                what = f"an event {name!r} of schema {record.schema} ({error})"
                raise UnknownEvent(record.stream, version, what) from error
        return events

    def _read(self, name: str, data: bytes) -> E:
        arguments: dict[str, Any] = {}
        stored: dict[str, Any] = orjson.loads(data)
        for key, value in stored.items():
            field = self._long.get(key, key)
            from_json = self._from_json.get(field)
            arguments[field] = value if from_json is None else from_json(value)
        return self._classes[name](**arguments)
